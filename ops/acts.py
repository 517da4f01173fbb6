"""The commands about what people do for plans, and how plans stand.

milestones        how the milestones of plans stand, of a company or of all; with --history what was recognised
milestones tick   say that an action which people do is done for a company, or not
milestones settle accept a correction of a milestone that was final already
complete          say that a source has sent everything up to a time

They are commands of `milepost` itself (`ops/cli.py` adds them); what all commands share lies there.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from milepost.ops.options import At, Basis, By, Company, Json, Org
from milepost.schemas.errors import DeclarationError

History = Annotated[bool, typer.Option("--history", help="What was recognised of a company, and corrected since.")]

app = typer.Typer()
stands = typer.Typer(
    name="milestones",
    invoke_without_command=True,
)
app.add_typer(stands)


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
        path = f"/v1/sources/{cli._quoted(source)}/complete"
        _show_receipt(json, client.post(path, _given(until=until, by=by, org=org)))


@stands.command()
def tick(
    plan: Annotated[str, typer.Argument(help="A plan of the definitions.")],
    milestone: Annotated[str, typer.Argument(help="A milestone of the plan.")],
    action: Annotated[str, typer.Argument(help="An action of the milestone that is manual.")],
    company: Annotated[str, typer.Argument(help="A MetaKey (mk_…) or key:value.")],
    undone: Annotated[bool, typer.Option("--undone", help="It is not done (any more).")] = False,
    at: Annotated[str | None, typer.Option(help="When it was done (RFC 3339); left out: now.")] = None,
    id: Annotated[str | None, typer.Option(help="To change a tick: its id, with a higher --revision.")] = None,
    revision: Annotated[int, typer.Option(help="The higher counts.")] = 0,
    void: Annotated[bool, typer.Option("--void", help="Take the tick back.")] = False,
    by: By = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """Say that an action which people do is done for a company, or (--undone) is not."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        names = [cli._quoted(one) for one in (plan, milestone, action)]
        body = _given(company=company, done=not undone, at=at, id=id, revision=revision, void=void, by=by, org=org)
        told = client.post("/v1/plans/{}/milestones/{}/actions/{}".format(*names), body)
        _show_receipt(json, told)


@stands.command()
def settle(
    plan: Annotated[str, typer.Argument(help="A plan of the definitions.")],
    milestone: Annotated[str, typer.Argument(help="A milestone of the plan.")],
    company: Annotated[str, typer.Argument(help="A MetaKey (mk_…) or key:value.")],
    dispute: Annotated[str, typer.Argument(help="Its id: `milestones --history` shows it.")],
    id: Annotated[str | None, typer.Option(help="To change an acceptance: its id, with a higher --revision.")] = None,
    revision: Annotated[int, typer.Option(help="The higher counts.")] = 0,
    void: Annotated[bool, typer.Option("--void", help="Take the acceptance back.")] = False,
    by: By = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """Accept a correction of a milestone that was final already: from now on it holds."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        names = [cli._quoted(one) for one in (plan, milestone, dispute)]
        body = _given(company=company, id=id, revision=revision, void=void, by=by, org=org)
        told = client.post("/v1/plans/{}/milestones/{}/disputes/{}:accept".format(*names), body)
        _show_receipt(json, told)


@stands.callback()
def milestones(
    context: typer.Context,
    company: Company = None,
    plan: Annotated[str | None, typer.Option(help="Of this plan only.")] = None,
    milestone: Annotated[str | None, typer.Option(help="This milestone only.")] = None,
    at: At = None,
    basis: Basis = None,
    org: Org = None,
    history: History = False,
    json: Json = False,
) -> None:
    """How the milestones of plans stand, for a company or for all, now or at any time; tick: what people do."""
    from milepost.ops import cli

    if context.invoked_subcommand is not None:
        return

    with cli._said(json), cli._client() as client:
        if history:
            if company is None or at is not None or basis is not None:
                raise DeclarationError("--history is of one company and of all times: give --company, no --at, --basis")
            of = {"company": company, "plan": plan, "milestone": milestone, "org": org}
            told = list(client.pages("/v1/milestones/history", "transitions", **of))
            cli._show(json, {"transitions": told}, "\n".join(map(_transition, told)) or "nothing was recognised")
            return
        asked = {"company": company, "plan": plan, "milestone": milestone, "at": at, "basis": basis, "org": org}
        answer = client.get("/v1/milestones", **asked)
        cli._show(json, answer, "\n".join(map(standing, answer["milestones"])) or "no milestone")


def _given(**body: Any) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _show_receipt(json: bool, told: dict[str, Any]) -> None:
    from milepost.ops import cli

    cli._show(json, told, f"accepted as {told['receipt']} (id {told['id']})")


def standing(row: dict[str, Any]) -> str:
    """A line for people."""
    since = row["achieved_at"] or (f"lapsed {row['lapsed']} times" if row["lapsed"] else "")
    values = ", ".join(map(_action, row["actions"]))
    dispute = f"  dispute {row['dispute']['status']} {row['dispute']['id']}" if row["dispute"] else ""
    return f"{row['name'][:24]:24}  {row['milestone']:20}  {row['state']:13}  {since}  ({values}){dispute}"


def _transition(row: dict[str, Any]) -> str:
    """A line for people."""
    before = row["before"]
    was = "" if before is None else f"  (before: {before['state']} {before['achieved_at'] or ''})".replace(" )", ")")
    why = f"  {row['cause']}" if row["cause"] else ""
    dispute = f"  dispute {row['dispute']} {row['id']}" if row["dispute"] else ""
    heir = f"  is {row['heir']} now" if row["heir"] else ""
    past = "  withdrawn" if row["withdrawn"] else "  backdated" if row["backdated"] else ""
    state = f"{row['state']} {row['achieved_at'] or ''}".rstrip()
    return f"{row['recognised_at']}  {row['milestone']:20}  {row['kind']:13}  {state}{why}{heir}{dispute}{past}{was}"


def _action(one: dict[str, Any]) -> str:
    if "op" in one:
        return f"{one['metric']} {one['value']} {one['op']} {one['target']}"
    by = f" by {one['by']}" if one["by"] else ""
    return f"{one['name']} {'done' if one['holds'] else 'not done'}{by}"
