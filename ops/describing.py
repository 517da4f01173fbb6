"""The command that describes: the line as it runs, and the definitions as documentation.

describe                          the line, as text;  --mermaid as a picture;  --check whether broker and worker agree
describe --docs [FOLDER]          the definitions as one page;  --check whether the folder's page says what runs
describe --openlineage [FOLDER]   their lineage for catalogues of data
describe --mermaid --bundle DIR   their picture

Definitions are those in force, read from the broker, or with --bundle those of a folder: then nothing need run.
It is a command of `milepost` itself (`ops/cli.py` adds it); what all commands share lies there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from milepost.ops.options import Json, Org
from milepost.schemas.errors import DeclarationError

if TYPE_CHECKING:
    from milepost.ops.manual import Defined

app = typer.Typer()

Folder = Annotated[Path | None, typer.Argument(help="Where the page (or the events) lies; left out: stdout.")]
Bundle = Annotated[Path | None, typer.Option("--bundle", help="The definitions of this folder, not those in force.")]


@app.command()
def describe(
    folder: Folder = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="The picture, as Mermaid.")] = False,
    docs: Annotated[bool, typer.Option("--docs", help="The definitions as a page, DEFINITIONS.md.")] = False,
    openlineage: Annotated[bool, typer.Option("--openlineage", help="Their lineage, one event a line.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare: exit 1 where it says otherwise.")] = False,
    bundle: Bundle = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """The line: legs, stages, stores, topics; or the definitions (--docs, --openlineage).  --check compares."""
    from milepost.ops import cli

    with cli._said(json):
        if docs and openlineage:
            raise DeclarationError("either --docs or --openlineage was expected, both came")
        if docs:
            _docs(folder, bundle, org, check, json)
        elif openlineage:
            _openlineage(folder, bundle, org, json)
        elif folder is not None:
            raise DeclarationError(f"{folder}: a folder is for --docs or --openlineage; fix: add one of them")
        elif mermaid and (bundle is not None or org is not None):
            _picture(bundle, org, json)
        else:
            _line(mermaid, check, json)


def _docs(folder: Path | None, bundle: Path | None, org: str | None, check: bool, json: bool) -> None:
    from milepost.ops import cli, manual

    if check and folder is None:
        raise DeclarationError("--docs --check compares with a folder; fix: describe --docs --check FOLDER")
    text = manual.page(_defined(bundle, org).catalog)
    if folder is None:
        cli._show(json, {"page": text}, text.rstrip())
    elif check:
        found = manual.difference(folder, text)
        cli._show(json, {"agrees": not found, "difference": found}, found or f"{folder / manual.PAGE} says what runs")
        if found:
            raise typer.Exit(cli.FAILED)
    else:
        written = manual.write(folder, manual.PAGE, text)
        cli._show(json, {"written": str(written)}, str(written))


def _openlineage(folder: Path | None, bundle: Path | None, org: str | None, json: bool) -> None:
    from milepost.ops import cli, manual

    events = manual.lineage_events(_defined(bundle, org))
    lines = "\n".join(orjson.dumps(one).decode() for one in events)
    if folder is None:
        cli._show(json, events, lines)
    else:
        written = manual.write(folder, manual.EVENTS, lines + "\n")
        cli._show(json, {"written": str(written), "events": len(events)}, str(written))


def _picture(bundle: Path | None, org: str | None, json: bool) -> None:
    from milepost.ops import cli
    from milepost.topology import bundle_picture

    drawn = bundle_picture.mermaid(_defined(bundle, org).catalog)
    cli._show(json, {"mermaid": drawn}, drawn.rstrip())


def _line(mermaid: bool, check: bool, json: bool) -> None:
    from milepost.ops import cli
    from milepost.ops import describe as describing
    from milepost.topology import describe as line

    settings = cli._settings()
    if mermaid:
        cli._show(json, {"mermaid": line.mermaid()}, line.mermaid().rstrip())
        return
    if not check:
        cli._show(json, describing.as_data(settings), line.text().rstrip())
        return
    wrong = describing.broker_differences(settings)
    with cli._client(settings) as client:
        wrong += describing.worker_differences(settings, client.get("/v1/topology"))
    agrees = "broker and worker agree with the line"
    cli._show(json, {"agrees": not wrong, "differences": wrong}, "\n".join(wrong) or agrees)
    if wrong:
        raise typer.Exit(cli.FAILED)


def _defined(bundle: Path | None, org: str | None) -> Defined:
    from milepost.ops import cli, manual

    if bundle is not None:
        return manual.of_folder(bundle, org)
    return manual.in_force(cli._reachable(cli._settings()), org)
