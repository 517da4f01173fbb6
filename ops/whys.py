"""The commands that ask for more than a number: why it is what it is, and how plans stand.

explain · diff  the events behind a value, and what changed it
milestones      how the milestones of plans stand, of a company or of all

They are commands of `milepost` itself (`ops/cli.py` adds them); what all commands share lies there.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from milepost.ops.options import At, Basis, Company, Dims, Json, Window, Zone
from milepost.schemas.errors import DeclarationError

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
def milestones(
    company: Company = None,
    plan: Annotated[str | None, typer.Option(help="Of this plan only.")] = None,
    milestone: Annotated[str | None, typer.Option(help="This milestone only.")] = None,
    at: At = None,
    basis: Basis = None,
    org: Annotated[str | None, typer.Option(help="The organisation; may be left out when there is one.")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="What was recognised of a company, and corrected.")
    ] = False,
    json: Json = False,
) -> None:
    """How the milestones of plans stand, for a company or for all, now or at any time."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        if history:
            if company is None or at is not None or basis is not None:
                raise DeclarationError(
                    "--history is of one company, and of all times: give --company, no --at or --basis"
                )
            asked = {"company": company, "plan": plan, "milestone": milestone, "org": org}
            told = list(client.pages("/v1/milestones/history", "transitions", **asked))
            cli._show(json, {"transitions": told}, "\n".join(map(_transition, told)) or "nothing was recognised")
            return
        asked = {"company": company, "plan": plan, "milestone": milestone, "at": at, "basis": basis, "org": org}
        answer = client.get("/v1/milestones", **asked)
        cli._show(json, answer, "\n".join(map(_stands, answer["milestones"])) or "no milestone")


def _transition(row: dict[str, Any]) -> str:
    """A line for people."""
    was = "" if row["before"] is None else f"  (before: {row['before']['state']} {row['before']['achieved_at'] or ''})"
    why = "" if row["cause"] is None else f"  {row['cause']}"
    dispute = "" if row["dispute"] is None else f"  dispute {row['dispute']}"
    since = row["achieved_at"] or ""
    return f"{row['recognised_at']}  {row['milestone']:20}  {row['kind']:13}  {row['state']} {since}{why}{dispute}{was}"


def _stands(row: dict[str, Any]) -> str:
    """A line for people."""
    since = row["achieved_at"] or (f"lapsed {row['lapsed']} times" if row["lapsed"] else "")
    watched = [one for one in row["actions"] if "op" in one]
    values = ", ".join(f"{one['metric']} {one['value']} {one['op']} {one['target']}" for one in watched)
    return f"{row['name'][:24]:24}  {row['milestone']:20}  {row['state']:13}  {since}  ({values})"
