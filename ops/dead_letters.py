"""The commands `milepost dead-letters …`: events that broke their contract, as problems, and their repair.

list     problems, the newest first           show     one: an example, what it keeps from being counted, repairs
repair   its events sent again, mapped by a file; with --dry-run what would become of all of them

A repair is asked for part by part, and the progress is said; cut off, the same command goes on where it was.  (A
mapping is described in `topology/mapping.py`, and in the README.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from milepost.ops.options import By, Json, Org
from milepost.schemas.errors import DeclarationError

PREVIEW_S: Final = 300.0
"""How long a preview may take: it looks at every event of the problem."""

app = typer.Typer(
    name="dead-letters", help="Events that broke their contract: list, show, repair.", no_args_is_help=True
)

Which = Annotated[str, typer.Argument(metavar="PROBLEM", help="Its 16 digits, or how they begin.")]


@app.command(name="list")
def list_(
    state: Annotated[str | None, typer.Option(help="open, repairing or repaired; left out: all.")] = None,
    source: Annotated[str | None, typer.Option(help="Of this source only.")] = None,
    reason: Annotated[str | None, typer.Option(help="Of this reason only.")] = None,
    org: Org = None,
    json: Json = False,
) -> None:
    """The problems, the newest first."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        asked = {"state": state, "source": source, "reason": reason, "org": org}
        rows = list(client.pages("/v1/dead-letters", "problems", **asked))
        cli._show(json, rows, "\n".join(map(_line, rows)) or "no dead letters")


@app.command()
def show(problem: Which, json: Json = False) -> None:
    """One problem: what is wrong, an example, what it keeps from being counted, what was done about it."""
    from milepost.ops import cli

    with cli._said(json), cli._client() as client:
        told = client.get(f"/v1/dead-letters/{_whole(client, problem)}")
        cli._show(json, told, _shown(told))


@app.command()
def repair(
    problem: Which,
    mapping: Annotated[
        Path | None, typer.Option(help="What to do to each event (YAML); left out: sent again as it is.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of all of them.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="With --dry-run: as if the bundle in this folder were in force.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="In the place of another repair that has begun and not ended.")
    ] = False,
    by: By = None,
    json: Json = False,
) -> None:
    """Send the events of a problem again, once, mapped.  Exit code 1: some could not be repaired and stay open."""
    from milepost.ops import cli
    from milepost.ops.apply import read_files

    with cli._said(json):
        if mapping is not None and not mapping.is_file():
            raise DeclarationError(f"{mapping} is not a file")
        if bundle is not None and not dry_run:
            raise DeclarationError("--bundle is for --dry-run; fix: `milepost apply` it, then repair")
        body: dict[str, Any] = {"by": by}
        if mapping is not None:
            body["mapping"] = mapping.read_text(errors="replace")
        if bundle is not None:
            body["files"] = {name: text.decode(errors="replace") for name, text in read_files(bundle).items()}
        with cli._client() as client:
            path = f"/v1/dead-letters/{_whole(client, problem)}/repair"
            client._wait(PREVIEW_S)
            if dry_run:
                told = client.post(f"{path}?dry_run=true", body)
                cli._show(json, told, _previewed(told))
                failed = told["fail"]
            else:
                told = _repaired(client, path, {**body, "replace": replace}, cli._progress)
                cli._show(json, told, _done(told))
                failed = told["open"]
        if failed:
            raise typer.Exit(cli.FAILED)


def _repaired(client: Any, path: str, body: dict[str, Any], say: Any) -> dict[str, Any]:
    """All parts of a repair, added up."""
    sent, failing, settled = 0, dict[tuple[str, str], dict[str, Any]](), Counter[str]()
    while True:
        part = client.post(path, body)
        sent += part["sent"]
        settled.update(part.get("settled", {}))
        for one in part.get("failing", ()):
            known = failing.setdefault((one["why"], one["detail"]), {**one, "count": 0})
            known["count"] += one["count"]
        if part["next"] is None:
            told = {name: part[name] for name in ("problem", "repair", "state", "open")}
            return {**told, "sent": sent, "settled": dict(settled), "failing": list(failing.values())}
        say(f"{sent:,} sent again, {part['open']:,} still open")
        body = {**body, "next": part["next"], "replace": False}


def _whole(client: Any, beginning: str) -> str:
    """A problem's digits from how they begin."""
    if len(beginning) >= 16:
        return beginning
    found = [
        str(one["problem"])
        for one in client.pages("/v1/dead-letters", "problems")
        if str(one["problem"]).startswith(beginning)
    ]
    if len(found) != 1:
        several = f"{len(found)} problems begin" if found else "no problem begins"
        raise DeclarationError(f"{several} with {beginning!r}; `milepost dead-letters list` shows them")
    return found[0]


def _line(one: Mapping[str, Any]) -> str:
    where = "/".join(part for part in (one["org"], one["source"], one["type"]) if part) or "(unreadable)"
    rule = f", rule {one['rule']}" if one["rule"] else ""
    return (
        f"{one['problem']}  {one['state']:9} {one['open']:>9,} of {one['count']:,}  {where}{rule}  "
        f"{one['reason']}: {one['detail']}"
    )


def _shown(told: Mapping[str, Any]) -> str:
    lacking = [
        f"  {name}: {', '.join(told['concerned'][name])}" for name in told["concerned"] if told["concerned"][name]
    ]
    repairs = [
        f"  {one['repair']}  {one['state']}, begun {one['begun']}{' by ' + one['by'] if one['by'] else ''}: "
        f"{one['sent']:,} sent again, {one['settled']:,} settled"
        for one in told["repairs"]
    ]
    return "\n".join(
        [
            _line(told),
            f"from {told['first']} to {told['last']}, stage {told['stage']}",
            *([f"not repaired by a mapping: {told['obstacle']}"] if told["obstacle"] else ()),
            *(["kept from being counted:", *lacking] if lacking else ()),
            *(["repairs:", *repairs] if repairs else ()),
            f"example, {told['example']}:",
            *(_pretty(told["event"]) if told["event"] is not None else ["  its record is gone"]),
        ]
    )


def _pretty(event: Mapping[str, Any]) -> list[str]:
    import orjson

    return [f"  {line}" for line in orjson.dumps(event, option=orjson.OPT_INDENT_2).decode().splitlines()]


def _failing(told: Mapping[str, Any]) -> list[str]:
    return [f"  {one['count']:,} {one['why']}: {one['detail']} (as {one['example']})" for one in told["failing"]]


def _previewed(told: Mapping[str, Any]) -> str:
    settled = ", ".join(f"{count:,} {why}" for why, count in told["settled"].items())
    beyond = told["open"] - told["looked_at"]
    metrics = [
        f"  {one['metric']}: {one['before']} → {one['after']} {one['unit']}".rstrip()
        + ("  (it replaces what is counted now)" if one["reason"] == "replaces" else "")
        for one in told["metrics"]
    ]
    return "\n".join(
        [
            f"{told['pass']:,} of {told['open']:,} would be accepted, {told['fail']:,} would fail again",
            *([f"the {beyond:,} oldest were not looked at"] if beyond else ()),
            *_failing(told),
            *([f"need not be sent: {settled}"] if settled else ()),
            *(
                f"  {count:,} would still have no value for {rule}"
                for rule, count in told["rules_without_value"].items()
            ),
            *(["metrics:", *metrics] if metrics else ()),
            "nothing was written",
        ]
    )


def _done(told: Mapping[str, Any]) -> str:
    settled = ", ".join(f"{count:,} {why}" for why, count in told["settled"].items())
    return "\n".join(
        [
            f"{told['state']}: {told['sent']:,} sent again, {told['open']:,} still open (repair {told['repair']})",
            *([f"need not be sent: {settled}"] if settled else ()),
            *_failing(told),
        ]
    )
