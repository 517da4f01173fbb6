"""`milepost quality`: whether sources keep what their contracts promise, as text, a line a promise.

It is a command of `milepost` itself (`ops/cli.py` adds it); what all commands share lies there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from milepost.ops.options import At, Basis, Json

app = typer.Typer()
FAILED = 1


@app.command()
def quality(
    source: Annotated[str | None, typer.Argument(help="Of this source only.")] = None,
    at: At = None,
    basis: Basis = None,
    org: Annotated[str | None, typer.Option(help="Organisation; may be left out when there is one.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when a breach lasts.")] = False,
    json: Json = False,
) -> None:
    """Whether sources keep what they promise: freshness, volume, unmatched share, schema; and their breaches."""
    from milepost.ops import cli

    with cli._said(json):
        with cli._client() as client:
            asked: dict[str, str | int | None] = {"source": source, "at": at, "basis": basis, "org": org}
            told = client.get("/v1/quality", **asked)
            while told["next"]:
                more = client.get("/v1/quality", **asked, next=told["next"])
                told = {**more, "sources": told["sources"] + more["sources"]}
        cli._show(json, told, "\n".join(line for one in told["sources"] for line in told_of(one)))
        if check and any(one["breaches"] for one in told["sources"]):
            raise typer.Exit(FAILED)


def told_of(row: Mapping[str, Any]) -> Iterator[str]:
    """A source: its state, each promise, its last breaches."""
    since = f" since {row['since']}" if row["since"] else ""
    yield f"{row['source']:24}  {row['state'] or 'not known'}{since}" + (
        f"  ({row['reason']})" if row["reason"] else ""
    )
    fresh, volume, unmatched, schema = (row[name] for name in ("freshness", "volume", "unmatched", "schema"))
    if fresh["expected_ms"] is not None:
        yield _line(
            "freshness", fresh, f"last {fresh['newest_known'] or '–'}, every {_length(fresh['expected_ms'])} expected"
        )
    if volume["min"] is not None:
        events = "–" if volume["events"] is None else f"{volume['events']:,}"
        yield _line("volume", volume, f"{events} events in {_length(volume['per_ms'])}, {volume['min']:,} expected")
    if unmatched["max"] is not None:
        share = "–" if unmatched["share"] is None else f"{unmatched['share']:.2%}"
        yield _line("unmatched", unmatched, f"{share}, {unmatched['max']:.2%} at most")
        for one in unmatched["examples"]:
            yield f"      {one['receipt']}  {one['type']}  {one['key']} {one['why']}"
    for one in schema["by_reason"]:
        mark = "breach" if one["breach"] else "      "
        yield f"  {mark}  {one['records']:,} {one['reason']} in a day, the first {one['first']}  {one['receipt']}"
    for one in row["history"][:5]:
        yield f"  {one['breach']:9}  {one['begin']} – {one['end'] or 'now'}"


def _line(name: str, row: Mapping[str, Any], said: str) -> str:
    kept = {True: "ok", False: "broken", None: f"not known ({row['reason']})"}[row["ok"]]
    return f"  {name:9}  {kept}: {said}"


def _length(ms: int) -> str:
    """A duration as bundles write it."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
