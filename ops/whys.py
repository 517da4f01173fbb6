"""The commands that ask for more than a number: why it is what it is.

explain · diff  the events behind a value, and what changed it

They are commands of `milepost` itself (`ops/cli.py` adds them); what all commands share lies there.
"""

from __future__ import annotations

from typing import Annotated

import typer

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
