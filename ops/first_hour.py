"""The commands of the first hour: a bundle to begin with, events, a number, a look into the log, what is wrong.

init     a commented bundle, with the schema that editors complete it by
send     events of a file, from where an earlier run was cut short
query    a metric: a value, a breakdown or a series; without a name, which there are
tail     the messages of a topic, decoded
doctor   what a start needs, each finding with its fix

They are commands of `milepost` itself (`ops/cli.py` adds them); what all commands share lies there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from milepost.ops import completing, options
from milepost.ops.options import At, Basis, Company, Dims, Json, Window, Zone
from milepost.ops.settings import VARIABLES
from milepost.schemas.errors import DeclarationError

if TYPE_CHECKING:
    from milepost.ops.doctor import Finding

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to; made if it is not there.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Over files that are there.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="The schema for editors alone, over the one there.")] = False,
    for_: Annotated[
        str,
        typer.Option(
            "--for", help="shop, or git: what `milepost connect git` sends.", autocompletion=completing.starters
        ),
    ] = "shop",
    json: Json = False,
) -> None:
    """Write a bundle to begin with: definitions, a contract, a test, and the schema by which editors check them."""
    from milepost.ops import cli, starter

    with cli._said(json):
        written = [str(one) for one in starter.write(folder, for_, force=force, schema_only=schema)]
        cli._show(json, {"written": written}, "\n".join(written))
        if not schema:
            cli._progress(starter.following(folder, for_))


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="One JSON event a line; - reads stdin.", allow_dash=True)],
    wait: Annotated[bool, typer.Option("--wait", help="End when every answer includes what was sent.")] = False,
    again: Annotated[bool, typer.Option("--again", help="From the beginning, also where a run was cut short.")] = False,
    outcomes: Annotated[
        Path | None, typer.Option(help="Write here what became of each line: accepted, duplicate, rejected and why.")
    ] = None,
    json: Json = False,
) -> None:
    """Send events to the worker's gateway.  Exit 1 when any was rejected.

    A run that was cut short (Ctrl-C, a worker that is gone) goes on when the same command is given again."""
    from milepost.ops import cli
    from milepost.ops.resuming import CutShort, is_readable, send_file, told_to
    from milepost.ops.send import SendReport, lines_of, send_lines, wait_included

    with cli._said(json):
        settings, report, before = cli._settings(), SendReport(), 0
        if str(file) != "-":
            is_readable(file)
        with cli._client(settings) as client:
            try:
                if str(file) == "-":
                    with told_to(outcomes, report):
                        send_lines(client, (line for line, _ in lines_of(sys.stdin.buffer)), report, say=cli._progress)
                else:
                    before = send_file(client, settings, file, report, anew=again, outcomes=outcomes, say=cli._progress)
            except CutShort as cut:
                code = cli.INTERRUPTED if cut.asked else cli.NOTHING_ANSWERS
                cli._fail(json, str(cut), code, lines=cut.lines, **report.as_data())
            if wait:
                wait_included(client, report)
        cli._show(json, {**report.as_data(), "lines_before": before}, report.text())
        if report.rejected:
            raise typer.Exit(cli.FAILED)


@app.command()
def query(
    metric: Annotated[
        str | None, typer.Argument(help="Its name; left out: which there are.", autocompletion=completing.metrics)
    ] = None,
    company: Company = None,
    at: At = None,
    basis: Basis = None,
    window: Window = None,
    tz: Zone = None,
    dim: Dims = None,
    by: Annotated[str | None, typer.Option(help="Break down by a dimension, or by company, person, …")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="A series from this time on.")] = None,
    to: Annotated[str | None, typer.Option(help="The series' end.")] = None,
    every: Annotated[str | None, typer.Option(help="The series' step: 1h, 1d, week, month.")] = None,
    after: Annotated[
        str | None, typer.Option(help="A receipt that the answer must include: raw-events/3@1288.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Rows of a breakdown, at most 1,000.")] = None,
    following: Annotated[str | None, typer.Option("--next", help="Of a breakdown: what the page before says.")] = None,
    org: options.Org = None,
    json: Json = False,
) -> None:
    """Ask the worker for a metric: a value, a breakdown (--by) or a series (--from --to --every)."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        asked = {**cli._question(company, at, basis, window, tz, dim), "after": after, "org": org}
        series = bool(from_ or to or every)
        if series and by:
            raise DeclarationError("--by and --from/--to/--every exclude each other: ask for a breakdown or a series")
        if metric is None:
            if by or series or any(value for name, value in asked.items() if name not in ("after", "org")):
                raise DeclarationError("a metric was expected; `milepost query` alone lists which there are")
            answer = client.get("/v1/metrics", after=after, org=org)
            cli._show(json, answer, _listed(answer))
            return
        kind = "breakdown" if by else "series" if series else "value"
        if by:
            asked |= {"by": by, "limit": limit, "next": following}
        elif limit is not None or following is not None:
            raise DeclarationError("--limit and --next are for a breakdown; fix: add --by")
        if series:
            asked |= {"from": from_, "to": to, "every": every}
        answer = client.get(f"/v1/metrics/{cli._quoted(metric)}/{kind}", **asked)
        cli._show(json, answer, cli._answer(answer))
        if answer.get("next"):
            cli._progress(f"{len(answer['rows']):,} rows; `--next {answer['next']}` shows more")


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="A topic of the line, as raw-events.", autocompletion=completing.topics)],
    from_: Annotated[
        str,
        typer.Option("--from", help="start, end, a time with zone (RFC 3339), or -10: the last ten of each partition."),
    ] = "end",
    from_start: Annotated[bool, typer.Option("--from-start", help="The same as --from start.")] = False,
    count: Annotated[int | None, typer.Option("-n", help="End after so many messages.", min=1)] = None,
    wait: Annotated[bool, typer.Option(help="Wait for more; --no-wait ends at the topic's end.")] = True,
    json: Json = False,
) -> None:
    """Print a topic's messages, decoded, one JSON object a line, and wait for more; Ctrl-C ends it."""
    from milepost.ops import cli
    from milepost.ops import tail as tailing

    with cli._said(json), contextlib.suppress(KeyboardInterrupt):
        begin = tailing.beginning("start" if from_start else from_)
        messages = tailing.tail(cli._settings(), topic, begin=begin, wait=wait, say=cli._progress)
        with contextlib.closing(messages):  # type: ignore[type-var]
            for number, message in enumerate(messages, start=1):
                cli._print(orjson.dumps(message))
                if number == count:
                    return


@app.command()
def doctor(
    settings: Annotated[bool, typer.Option("--settings", help="Print the manual of the settings.")] = False,
    json: Json = False,
) -> None:
    """Look at everything a start needs, and say how to mend what is wrong (exit 1 if anything is)."""
    from milepost.ops import cli
    from milepost.ops import doctor as examination

    with cli._said(json):
        if settings:
            rows = [{"name": name, "default": default, "means": means} for name, (default, means) in VARIABLES.items()]
            said = [f"{row['name']} [{row['default'] or 'empty'}]\n    {row['means']}" for row in rows]
            cli._show(json, rows, "\n".join(said))
            return
        findings = list(examination.examine(cli._settings()))
        cli._show(json, [dataclasses.asdict(one) for one in findings], "\n".join(map(_finding, findings)))
        wrong = sum(one.verdict == "wrong" for one in findings)
        if wrong:
            cli._progress(f"{wrong} of {len(findings)} are wrong")
            raise typer.Exit(cli.FAILED)


def _finding(one: Finding) -> str:
    """A finding for people, its fix below it."""
    return f"{one.verdict:5} {one.check:15} {one.said}" + (f"\n      fix: {one.fix}" if one.fix else "")


def _listed(answer: Mapping[str, Any]) -> str:
    return "\n".join(_lines_listed(answer))


def _lines_listed(answer: Mapping[str, Any]) -> Iterator[str]:
    """The metrics there are, for people: name, unit, what is counted, dimensions."""
    for one in answer["metrics"]:
        how = one["formula"] or one["aggregate"] or ""
        by = f"  by {', '.join(one['dimensions'])}" if one["dimensions"] else ""
        yield f"{one['name']:24}  {one['unit'] or '':10}  {how}{by}".rstrip()
    if not answer["metrics"]:
        yield f"the definitions of {answer['org']} have no metric yet"
        return
    span = answer["time_range"]
    yield f"{answer['org']}: " + (f"events from {span['from']} to {span['to']}" if span["from"] else "no event yet")
