"""The commands about what people do for plans, and how plans stand.

milestones   how the milestones of plans stand, of a company or of all
complete     say that a source has sent everything up to a time

They are commands of `milepost` itself (`ops/cli.py` adds them); what all commands share lies there.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from milepost.ops.options import At, Basis, By, Company, Json, Org

app = typer.Typer()


@app.command()
def complete(
    source: Annotated[str, typer.Argument(help="A source of the definitions.")],
    until: Annotated[str, typer.Argument(help="It has sent everything up to then (RFC 3339 with zone).")],
    by: By = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """Say that a source has sent everything up to a time, so that what is missing then is missed."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        given = {"until": until, "by": by, "org": org}
        body = {name: value for name, value in given.items() if value is not None}
        told = client.post(f"/v1/sources/{cli._quoted(source)}/complete", body)
        cli._show(json, told, f"accepted as {told['receipt']} (id {told['id']})")


@app.command()
def milestones(
    company: Company = None,
    plan: Annotated[str | None, typer.Option(help="Of this plan only.")] = None,
    milestone: Annotated[str | None, typer.Option(help="This milestone only.")] = None,
    at: At = None,
    basis: Basis = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """How the milestones of plans stand, for a company or for all, now or at any time."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        asked = {"company": company, "plan": plan, "milestone": milestone, "at": at, "basis": basis, "org": org}
        answer = client.get("/v1/milestones", **asked)
        cli._show(json, answer, "\n".join(map(_stands, answer["milestones"])) or "no milestone")


def _stands(row: dict[str, Any]) -> str:
    """A line for people."""
    since = row["achieved_at"] or (f"lapsed {row['lapsed']} times" if row["lapsed"] else "")
    watched = [one for one in row["actions"] if "op" in one]
    values = ", ".join(f"{one['metric']} {one['value']} {one['op']} {one['target']}" for one in watched)
    return f"{row['name'][:24]:24}  {row['milestone']:20}  {row['state']:13}  {since}  ({values})"
