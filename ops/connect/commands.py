"""The commands `milepost connect …`: what lies elsewhere, sent as events.

git        the history of a repository
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from milepost.ops.options import Json, Org

app = typer.Typer(name="connect", help="What lies elsewhere, sent as events: git.", no_args_is_help=True)

Wait = Annotated[bool, typer.Option("--wait", help="End when every answer includes what was sent.")]


@app.command()
def git(
    path: Annotated[Path, typer.Argument(help="A clone, or a bare repository.")],
    org: Org = None,
    ref: Annotated[list[str] | None, typer.Option(help="What to read, also several times [HEAD].")] = None,
    every: Annotated[bool, typer.Option("--all", help="All branches and tags.")] = False,
    name: Annotated[str, typer.Option(help="The repository's name [its folder's].")] = "",
    mailmap: Annotated[bool, typer.Option(help="Whether .mailmap says who goes by which address.")] = True,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Send a repository's history: commits, authors, links and memberships.  Again, it sends what is new.

    Names and addresses of authors and committers are sent, messages and contents are not."""
    from milepost.ops import cli
    from milepost.ops.connect.history import Wish, send_history
    from milepost.ops.send import wait_included

    with cli._said(json), cli._client() as client:
        wish = Wish(path=path, org=org, name=name, refs=tuple(ref or ()), every=every, mailmap=mailmap)
        report = send_history(client, cli._settings(), wish, say=cli._progress)
        if wait:
            for part in (report.authors, report.commits):
                wait_included(client, part)
        cli._show(json, report.as_data(), report.text())
        if report.rejected:
            raise typer.Exit(cli.FAILED)
