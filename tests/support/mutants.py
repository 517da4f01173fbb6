"""Mutants: the engine with one rule left out, as patches, and the suites that must notice.

    tests/mutants/NAME.patch -> a copy of the four rooms, patched -> the suite it names runs over the copy -> must fail

A patch is a unified diff without line numbers that count: each hunk's old lines must be found exactly once, so that it
survives edits around it, and is known to be stale when it does not.  Its header says, before the diff:

    rule: what it breaks
    killed by: simulator SEEDS | pytest ARGUMENTS
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "tests" / "mutants"
ROOMS: Final = ("agents", "ops", "schemas", "topology")


class Stale(Exception):
    """The patch no longer fits the code it was made for: make it anew."""


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """Lines of a file that are replaced by others."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A patch.  killed_by: the suite's name and its arguments."""

    name: str
    rule: str
    killed_by: tuple[str, ...]
    hunks: tuple[Hunk, ...]


def mutants() -> list[Mutant]:
    """All of them, by name."""
    return [read(path) for path in sorted(FOLDER.glob("*.patch"))]


def read(path: Path) -> Mutant:
    """The mutant in a file; Stale when it says nothing of its rule or its suite."""
    head: dict[str, str] = {}
    hunks: list[Hunk] = []
    file, old, new = "", [], []  # type: str, list[str], list[str]

    def close() -> None:
        if old or new:
            hunks.append(Hunk(file=file, old="\n".join(old), new="\n".join(new)))
            old.clear()
            new.clear()

    for line in path.read_text().splitlines():
        if line.startswith("--- "):
            close()
            file = line[4:].split("\t")[0].removeprefix("a/")
        elif line.startswith("+++ "):
            continue
        elif line.startswith("@@"):
            close()
        elif not file:
            name, _, said = line.partition(": ")
            head[name] = said
        elif line.startswith("-"):
            old.append(line[1:])
        elif line.startswith("+"):
            new.append(line[1:])
        else:
            old.append(line[1:])
            new.append(line[1:])
    close()
    if not head.get("rule") or not head.get("killed by") or not hunks:
        raise Stale(f"{path.name}: expected `rule:`, `killed by:` and a diff")
    return Mutant(name=path.stem, rule=head["rule"], killed_by=tuple(head["killed by"].split()), hunks=tuple(hunks))


def copy_of_the_rooms(folder: Path) -> Path:
    """A package `milepost` in `folder`, with the four rooms as they are now."""
    package = folder / "milepost"
    package.mkdir()
    for one in (ROOT / "src" / "milepost").iterdir():
        if one.is_file():
            shutil.copy(one, package / one.name)
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def apply(mutant: Mutant, package: Path) -> None:
    """Patch the copy.  Stale when a hunk is not found exactly once."""
    for hunk in mutant.hunks:
        path = package / hunk.file
        if not path.exists():
            raise Stale(f"{mutant.name}: {hunk.file} is gone; make the patch anew")
        text = path.read_text()
        count = text.count(f"{hunk.old}\n")
        if count != 1:
            raise Stale(
                f"{mutant.name}: these lines are {count} times in {hunk.file}; make the patch anew:\n{hunk.old}"
            )
        path.write_text(text.replace(f"{hunk.old}\n", f"{hunk.new}\n" if hunk.new else ""))


def run(mutant: Mutant, folder: Path, seconds: float = 600.0) -> tuple[bool, str]:
    """(whether the suite noticed, the end of what it said).  The copy is made in `folder`."""
    apply(mutant, copy_of_the_rooms(folder))
    suite, *arguments = mutant.killed_by
    env = {name: value for name, value in os.environ.items() if not name.startswith("MILEPOST_")}
    kept = {name: os.environ[name] for name in ("MILEPOST_TEST_BROKER", "MILEPOST_JARS") if name in os.environ}
    env |= {**kept, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "PYTHONDONTWRITEBYTECODE": "1"}
    env["MUTANT_SRC"] = str(folder)
    if suite == "simulator":
        command = [sys.executable, "-m", "tests.support.simulator", "0", *arguments, "--first-only"]
    else:
        command = [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-o", f"pythonpath={folder} .", *arguments,
        ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    said = (done.stdout + done.stderr)[-3000:]
    if done.returncode not in (0, 1):
        raise AssertionError(f"{mutant.name}: the suite itself failed with {done.returncode}:\n{said}")
    return done.returncode == 1, said
