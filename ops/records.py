"""The commands `milepost records …`: what a record is or was, and how it came to be so.

show · history · diff     questions
restore                   what it was at a time becomes its newest version
"""

from __future__ import annotations

import json as jsons
import urllib.parse
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from milepost.ops.options import Json

app = typer.Typer(name="records", help="What a record is or was: show, history, diff, restore.", no_args_is_help=True)

Type = Annotated[str, typer.Argument(help="The type of the record, as the definitions name it.")]
Id = Annotated[str, typer.Argument(help="The record's id.")]
At = Annotated[str | None, typer.Option(help="As of this time (RFC 3339).")]
Basis = Annotated[str | None, typer.Option(help="latest, corrected or as_shown.")]
To = Annotated[str | None, typer.Option(help="The second moment; left out: now.")]
By = Annotated[str | None, typer.Option(help="Who decides; it lies in the event.")]
Org = Annotated[str | None, typer.Option(help="The organisation; may be left out when there is one.")]


@app.command()
def show(type: Type, id: Id, at: At = None, basis: Basis = None, org: Org = None, json: Json = False) -> None:
    """A record at a time."""
    told = _get(json, _path(type, id), at=at, basis=basis, org=org)
    _say(json, told, _value(told))


@app.command()
def history(type: Type, id: Id, at: At = None, basis: Basis = None, org: Org = None, json: Json = False) -> None:
    """Its changes, the latest first."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        rows = list(client.pages(f"{_path(type, id)}/history", "versions", at=at, basis=basis, org=org))
        cli._show(json, rows, "\n".join(map(_version, rows)) or "nothing is known of it")


@app.command()
def diff(
    type: Type, id: Id, at: At = None, to: To = None, basis: Basis = None, org: Org = None, json: Json = False
) -> None:
    """What differs between two moments."""
    told = _get(json, f"{_path(type, id)}/diff", at=at, to=to, basis=basis, org=org)
    lines = [f"{name}: {_json(one['before'])} -> {_json(one['after'])}" for name, one in told["fields"].items()]
    lines += [f"+ {_version(one)}" for one in told["added"]] + [f"- {_version(one)}" for one in told["withdrawn"]]
    _say(json, told, "\n".join(lines) or "nothing differs")


@app.command()
def restore(
    type: Type,
    id: Id,
    at: Annotated[str, typer.Option(help="The time whose value comes back (RFC 3339).")],
    basis: Basis = None,
    by: By = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """Make what it was at a time its newest version."""
    from milepost.ops import cli

    body = {"at": at, "basis": basis, "by": by, "org": org}
    with cli._said(json), cli._client() as client:
        given = {name: one for name, one in body.items() if one is not None}
        told = client.post(f"{_path(type, id)}/restore", given)
        cli._show(json, told, f"accepted as {told['receipt']}: {_json(told['value'])}")


def _get(json: bool, path: str, **parameters: str | None) -> Mapping[str, Any]:
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        told: Mapping[str, Any] = client.get(path, **parameters)
    return told


def _say(json: bool, told: Mapping[str, Any], text: str) -> None:
    from milepost.ops import cli

    cli._show(json, told, text)


def _path(type: str, id: str) -> str:
    return f"/v1/records/{urllib.parse.quote(type, safe='')}/{urllib.parse.quote(id, safe='')}"


def _value(told: Mapping[str, Any]) -> str:
    if told["value"] is None:
        return f"no record ({told['reason']})"
    return "\n".join(f"{name}: {_json(one)}" for name, one in told["value"].items())


def _version(one: Mapping[str, Any]) -> str:
    event = one["event"]
    aside = "" if one["holds"] else f"  (until {one['ended']})"
    name = f"{event['source']}/{event['id']}" + (f" revision {one['revision']}" if one["revision"] else "")
    return f"{one['time']}  {one['op']:6} {_json(one['fields'])}  {name}, known {one['known']}{aside}"


def _json(value: Any) -> str:
    return jsons.dumps(value, ensure_ascii=False)
