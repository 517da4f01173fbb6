"""The commands that ask for more than a number: why it is what it is.

explain · diff  the events behind a value, and what changed it
watch           values and milestones as they change

They are commands of `milepost` itself (`ops/cli.py` adds them); what all commands share lies there.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import orjson
import typer

from milepost.ops.acts import standing
from milepost.ops.options import At, Basis, Company, Dims, Json, Window, Zone

app = typer.Typer()


@app.command()
def explain(
    metric: str,
    company: Company = None,
    at: At = None,
    basis: Basis = None,
    window: Window = None,
    tz: Zone = None,
    dim: Dims = None,
    limit: Annotated[int, typer.Option(help="Events a page, at most 1,000.")] = 20,
    following: Annotated[str | None, typer.Option("--next", help="What the page before says.")] = None,
    json: Json = False,
) -> None:
    """The events behind a value of `query`, added again on the spot (exit 1 if the two differ)."""
    from milepost.ops import cli, why

    with cli._said(json), cli._client() as client:
        asked = {**cli._question(company, at, basis, window, tz, dim), "limit": limit, "next": following}
        answer = client.get(f"/v1/metrics/{cli._quoted(metric)}/explain", **asked)
        cli._show(json, answer, why.explained(answer))
        if answer["agrees"] is False:
            raise typer.Exit(cli.FAILED)


@app.command()
def diff(
    metric: str,
    company: Company = None,
    at: At = None,
    basis: Basis = None,
    to: Annotated[str | None, typer.Option(help="The second moment; left out: now.")] = None,
    to_basis: Annotated[str | None, typer.Option(help="The basis of the second moment.")] = None,
    window: Window = None,
    tz: Zone = None,
    dim: Dims = None,
    limit: Annotated[int, typer.Option(help="Events a page, at most 1,000.")] = 20,
    following: Annotated[str | None, typer.Option("--next", help="What the page before says.")] = None,
    json: Json = False,
) -> None:
    """What changed a value from what was shown --at a moment to another (--to), or to now, and why."""
    from milepost.ops import cli, why

    with cli._said(json), cli._client() as client:
        asked = {**cli._question(company, at, basis, window, tz, dim), "limit": limit, "next": following}
        answer = client.get(f"/v1/metrics/{cli._quoted(metric)}/diff", **asked, to=to, to_basis=to_basis)
        cli._show(json, answer, why.differing(answer))


@app.command()
def watch(
    metrics: Annotated[list[str] | None, typer.Argument(metavar="[METRIC]...", help="Metrics to watch.")] = None,
    milestone: Annotated[list[str] | None, typer.Option(help="A milestone, also several times.")] = None,
    company: Annotated[list[str] | None, typer.Option(help="mk_… or key:value, also several times.")] = None,
    at: At = None,
    basis: Basis = None,
    window: Window = None,
    tz: Zone = None,
    dim: Dims = None,
    count: Annotated[int | None, typer.Option("-n", help="End after so many frames.")] = None,
    json: Json = False,
) -> None:
    """Values and milestones now, and whenever they change, a line each; Ctrl-C ends it."""
    from milepost.ops import cli
    from milepost.ops import watch as watching
    from milepost.ops.access import bearer

    with cli._said(json), contextlib.suppress(KeyboardInterrupt):
        settings = cli._settings()
        with cli._client(settings):
            pass  # that no worker is there is said at once
        asked = [(name, str(one)) for name, one in cli._question(None, at, basis, window, tz, dim).items() if one]
        for name, several in (("metric", metrics), ("milestone", milestone), ("company", company)):
            asked += [(name, one) for one in several or ()]
        frames = watching.watch(settings.url, asked, token=lambda: bearer(settings))
        for number, frame in enumerate(frames, start=1):
            cli._print(orjson.dumps(frame) if json else _frame(frame.event, frame.data).encode())
            if number == count:
                return


def _frame(event: str, data: dict[str, Any]) -> str:
    """A line for people."""
    from milepost.ops import cli

    if event == "milestone":
        return standing(data)
    if event == "value":
        return "  ".join(one for one in (data["metric"], data["company"], cli._answer(data)) if one)
    return f"{event}  {orjson.dumps(data).decode()}"
