"""The commands that keep what cannot be lost.

backup FOLDER    the raw log and the definitions, as files; the worker may run meanwhile
restore FOLDER   an empty deployment filled with them; the worker makes the rest again; then `restore --finish`

They are commands of `milepost` itself (`ops/cli.py` adds them); what all commands share lies there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from milepost.ops.options import Json
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError

app = typer.Typer()


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where to; a new folder for each backup.")], json: Json = False
) -> None:
    """Write what a deployment cannot lose to files: the raw log and the definitions (the secret is kept apart)."""
    from milepost.ops import cli
    from milepost.ops.backup import backup as write

    with cli._said(json):
        done = write(cli._reachable(cli._settings()), folder, say=cli._progress)
        cli._show(json, done.as_data(), f"{done.records:,} records in {done.folder}; keep the secret apart from it")


@app.command()
def restore(
    folder: Annotated[Path | None, typer.Argument(help="A folder of `backup`.")] = None,
    finish: Annotated[bool, typer.Option("--finish", help="The worker has taken all: let the cleaner work.")] = False,
    json: Json = False,
) -> None:
    """Fill an empty deployment with a backup; start the worker afterwards, and finish when it has taken all."""
    from milepost.ops import cli
    from milepost.ops.backup import finish as end
    from milepost.ops.backup import read_manifest
    from milepost.ops.backup import restore as fill

    with cli._said(json):
        if finish == (folder is not None):
            raise DeclarationError("either a folder or --finish was expected")
        if folder is None:
            settings = cli._reachable(cli._settings())
            with cli._client(settings) as client:
                end(settings, client.get("/v1/status"))
            cli._show(json, {"finished": True}, "the restore is finished: the cleaner works again")
            return
        read_manifest(folder)  # before a broker is started, or its jars are fetched, for nothing
        with _broker(cli._settings()) as settings:
            done = fill(settings, folder, say=cli._progress)
        cli._show(json, done.as_data(), f"{done.records:,} records restored; start the worker: it makes the rest again")


@contextlib.contextmanager
def _broker(settings: Settings) -> Iterator[Settings]:
    """A broker to restore into: the outside cluster, or the embedded one, started for as long as it takes."""
    from milepost.ops import cli, processes
    from milepost.ops.broker import EmbeddedBroker

    if processes.answers(settings.port, settings.host):
        raise DeclarationError(f"a worker answers at {settings.url}; fix: stop it, a restore wants an empty deployment")
    if not settings.embedded:
        yield cli._reachable(settings)
        return
    with EmbeddedBroker(settings.home, port=settings.broker_port, jars=settings.jars, say=cli._progress):
        yield settings
