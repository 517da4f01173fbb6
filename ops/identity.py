"""The commands `milepost identity …`: who is one with whom, and decisions about it.

resolve · review              questions
link · unlink · membership    decisions; with --dry-run what they would do
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from milepost.ops.options import By, Json, Org
from milepost.schemas.errors import DeclarationError

app = typer.Typer(
    name="identity", help="Who is one with whom: resolve, review, link, unlink, membership.", no_args_is_help=True
)

Keys = Annotated[list[str], typer.Argument(help="key:value, as carrier_code:UA.")]
Entity = Annotated[str, typer.Option(help="company, person, device, or what the bundle names.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")]


@app.command()
def link(
    keys: Keys, entity: Entity = "company", by: By = None, org: Org = None, dry_run: DryRun = False, json: Json = False
) -> None:
    """Say that two or more keys are one thing."""
    _decide("link", {"keys": keys, "entity": entity, "by": by, "org": org}, dry_run, json)


@app.command()
def unlink(
    keys: Keys, entity: Entity = "company", by: By = None, org: Org = None, dry_run: DryRun = False, json: Json = False
) -> None:
    """Say that keys leave what they are part of; they stay together among themselves."""
    _decide("unlink", {"keys": keys, "entity": entity, "by": by, "org": org}, dry_run, json)


@app.command()
def membership(
    member: Annotated[str, typer.Argument(help="The person's key:value.")],
    company: Annotated[str, typer.Argument(help="The company's key:value.")],
    from_: Annotated[str | None, typer.Option("--from", help="Valid from (RFC 3339); left out: always.")] = None,
    to: Annotated[str | None, typer.Option(help="Valid to (RFC 3339); left out: for good.")] = None,
    entity: Entity = "person",
    id: Annotated[str | None, typer.Option(help="To change a membership: its id, with a higher --revision.")] = None,
    revision: Annotated[int, typer.Option(help="The higher counts.")] = 0,
    void: Annotated[bool, typer.Option("--void", help="Take the membership back.")] = False,
    by: By = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """Say when a person (or a device) belonged to a company."""
    body = {
        "member": member, "company": company, "entity": entity, "from": from_, "to": to, "id": id,
        "revision": revision, "void": void, "by": by, "org": org,
    }  # fmt: skip
    _post("/v1/identity/membership", body, json)


@app.command()
def resolve(
    key: Annotated[str, typer.Argument(help="key:value, as carrier_code:UA.")],
    entity: Entity = "company",
    at: Annotated[str | None, typer.Option(help="As decided by then (RFC 3339).")] = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """What a key stands for, and why."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        kind, colon, value = key.partition(":")
        if not colon or not value:
            raise DeclarationError(f"{key[:64]!r} is no key:value; expected one as carrier_code:UA")
        told = client.get("/v1/identity/resolve", entity=entity, key=kind, value=value, at=at, org=org)
        lines = [f"{key} is {told['metakey']}", *(f"  {_why(one)}" for one in told["links"])]
        cli._show(json, told, "\n".join(lines))


@app.command()
def review(org: Org = None, json: Json = False) -> None:
    """Links that were refused and wait for a decision."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        rows = list(client.pages("/v1/identity/review", "review", org=org))
        lines = [
            f"{one['why']:9} {' = '.join(map(str, one['keys']))}  {one['means']} ({one['record']})" for one in rows
        ]
        cli._show(json, rows, "\n".join(lines) or "nothing waits for a decision")


def _decide(what: str, body: Mapping[str, Any], dry_run: bool, json: bool) -> None:
    _post(f"/v1/identity/{what}{'?dry_run=true' if dry_run else ''}", body, json)


def _post(path: str, body: Mapping[str, Any], json: bool) -> None:
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        told = client.post(path, {name: value for name, value in body.items() if value is not None})
        text = _effect(told) if told.get("dry_run") else f"accepted as {told['receipt']} (id {told['id']})"
        cli._show(json, told, text)


def _effect(told: Mapping[str, Any]) -> str:
    """Before and after, a thing a line."""
    if not told["changes"]:
        return "nothing would change"
    lines = []
    for side in ("before", "after"):
        lines.append(f"{side}:")
        for one in told[side]:
            metrics = "  ".join(f"{name} {value}" for name, value in one.get("metrics", {}).items())
            lines.append(f"  {one['name']} ({', '.join(one['keys'])})  {metrics}".rstrip())
    return "\n".join(lines)


def _why(link: Mapping[str, Any]) -> str:
    by = f" by {link['by']}" if link["by"] else ""
    return (
        f"{' = '.join(map(str, link['keys']))}  {link['how']}{by}, known from {link['known_from']} ({link['record']})"
    )
