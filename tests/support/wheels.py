"""Wheels: one built from a copy of the repository, and installed into an environment that never saw the clone.

files of the repository -> copy -> wheel -> an empty environment, an empty directory
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
ROOMS: Final = ("agents", "ops", "schemas", "topology")


@dataclass(frozen=True, kw_only=True)
class Empty:
    """An environment that holds the wheel and what it depends on; and an empty directory."""

    folder: Path
    here: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def milepost(self) -> Path:
        return self.folder / "bin" / "milepost"


def built(folder: Path) -> Path:
    """The wheel, built from a copy that holds what a clone holds, without git's folder."""
    clone = folder / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for name in ("src", *ROOMS):
        left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, clone / name, symlinks=True, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(clone)]
    if _setuptools() >= 77:  # what pyproject.toml asks for is here: nothing has to be fetched
        command.insert(-1, "--no-build-isolation")
    _done(command, 240)
    (found,) = folder.glob("*.whl")
    return found


def installed(wheel: Path, folder: Path, requirements: Path | None = None) -> Empty:
    """The wheel in a fresh environment.

    requirements: what it depends on, fetched and compared by hash as `make` does; without it, what is installed where
    this runs, by a path: nothing is fetched
    """
    made = Empty(folder=folder / "environment", here=folder / "here")
    made.here.mkdir()
    venv.create(made.folder, system_site_packages=False, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(made.python), "install", "--quiet", "--no-deps"]
    if requirements is None:
        _link_dependencies(folder / "others")
        (site,) = made.folder.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(f"{folder / 'others'}\n")
    else:
        _done([*pip, "--require-hashes", "-r", str(requirements)], 600)
    _done([*pip, "--no-index", str(wheel)], 120)
    return made


def environment() -> dict[str, str]:
    """The environment without the paths that lead to the clone."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _link_dependencies(folder: Path) -> None:
    """All that is installed where this runs, but for milepost itself and for `.pth` files, which may lead to it."""
    folder.mkdir()
    paths = sysconfig.get_paths()
    for site in sorted({paths["purelib"], paths["platlib"]}):
        for entry in Path(site).iterdir():
            if "milepost" not in entry.name and entry.suffix != ".pth" and entry.name != "__pycache__":
                (folder / entry.name).symlink_to(entry)


def _setuptools() -> int:
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


def _done(command: list[str], seconds: float) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
