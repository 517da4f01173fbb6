"""The commands `milepost connect …`: what lies elsewhere, sent as events.

git           the history of a repository
csv · ndjson  the rows of a table, by a mapping
webhook       where Segment and Snowplow post to, and an example
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from milepost.ops import completing
from milepost.ops.options import Json, Org

app = typer.Typer(
    name="connect", help="What lies elsewhere, sent as events: git, csv, ndjson, webhook.", no_args_is_help=True
)

Table = Annotated[Path, typer.Argument(metavar="FILE", help="The table; csv: with the names of its columns first.")]
Map = Annotated[Path, typer.Option("--map", metavar="MAPPING.yaml", help="How rows become events.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Send nothing: show the first events, and what does not fit.")]
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


@app.command()
def csv(
    file: Table, map: Map, org: Org = None, dry_run: DryRun = False, wait: Wait = False, json: Json = False
) -> None:
    """Send the rows of a CSV file.  Exit 1 when any does not fit or was rejected."""
    _table("csv", file, map, org, dry_run, wait, json)


@app.command()
def ndjson(
    file: Table, map: Map, org: Org = None, dry_run: DryRun = False, wait: Wait = False, json: Json = False
) -> None:
    """Send the objects of a file, one a line.  Exit 1 when any does not fit or was rejected."""
    _table("ndjson", file, map, org, dry_run, wait, json)


@app.command()
def webhook(
    system: Annotated[str, typer.Argument(help="segment, or snowplow.", autocompletion=completing.systems)],
    org: Org = None,
    json: Json = False,
) -> None:
    """Where a system posts its events to, and a post to try it with."""
    from milepost.ops import cli
    from milepost.ops.connect import webhooks

    with cli._said(json):
        told = webhooks.address(cli._settings(), system, org)
        cli._show(json, told, webhooks.text(told))


def _table(
    kind: Literal["csv", "ndjson"], file: Path, map: Path, org: str | None, dry_run: bool, wait: bool, json: bool
) -> None:
    from milepost.ops import cli
    from milepost.ops.connect.mapping import mapping_of
    from milepost.ops.connect.tables import send_table
    from milepost.ops.send import wait_included

    with cli._said(json):
        mapping = mapping_of(map, org)
        if dry_run:
            report = send_table(None, kind, file, mapping)
        else:
            with cli._client() as client:
                report = send_table(client, kind, file, mapping, say=cli._progress)
                if wait:
                    wait_included(client, report.sent)
        cli._show(json, report.as_data(), report.text())
        if report.rejected:
            raise typer.Exit(cli.FAILED)
