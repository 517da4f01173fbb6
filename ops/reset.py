"""Reset: delete what a deployment made, and nothing else: known names in its home, and its own topics."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import Final

from milepost.ops import processes, provision
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError

KNOWN: Final = ("broker", "connect", "faust", "log", "registry", "state", "secret")
"""What a deployment makes in its home, the jars excepted: they are the same for everyone, and cost a download."""


def targets(settings: Settings) -> list[str]:
    """What `reset` would delete: paths, and with an outside cluster the names of topics."""
    paths = [settings.home / name for name in KNOWN]
    there = [str(path) for path in paths if path.exists()]
    if not settings.embedded:
        admin = provision.admin_client(settings)
        there += [f"topic {name}" for name in provision.found(admin, [one.name for one in provision.wanted(settings)])]
    return there


def reset(settings: Settings) -> list[str]:
    """Delete the targets; returns them.  DeclarationError while anything of the deployment runs."""
    if processes.answers(settings.port, settings.host):
        raise DeclarationError(f"something still answers at {settings.url}; fix: stop the worker first")
    for part in ("broker", "registry"):
        _refuse_running(settings.home / part / "lock")
    gone = targets(settings)
    if not settings.embedded:
        provision.delete(settings)
    for name in KNOWN:
        path = settings.home / name
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"deleting {path}: {error}") from error
    return gone


def _refuse_running(lock: Path) -> None:
    if not lock.exists():
        return
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            what = f"the embedded {lock.parent.name} of this home"
            raise DeclarationError(f"{what} runs; fix: stop `milepost up` first") from error
