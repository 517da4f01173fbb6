"""The job in Quix Streams: dedupe in state by the event's key, rules, repartitioned by company, three cells a signal.

Arguments: bootstrap, app, raw, events, commit_ms, state, out.  At least once; RocksDB state with changelog topics.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from common import PANE_MS, Progress, arguments, rule_of
from quixstreams import Application, State

GIVEN = arguments()
PROGRESS = Progress(int(GIVEN["events"]))


def fresh(event: dict[str, Any], state: State) -> bool:
    """Whether the event is met for the first time; the state is the raw key's, which is the event's identity."""
    PROGRESS.took()
    if state.exists("seen"):
        return False
    state.set("seen", 1)
    return True


def signal(event: dict[str, Any]) -> dict[str, Any] | None:
    """The signal of an event, or None."""
    data = event["data"]
    rule = rule_of(event["type"], data["amount"], data["plan"])
    if not rule:
        return None
    PROGRESS.signals += 1
    at_ms = round(datetime.fromisoformat(event["time"]).timestamp() * 1000)
    pane = at_ms // PANE_MS
    return {
        "company": data["company"],
        "rule": rule,
        "pane": pane,
        "plan": data["plan"],
        "country": data["country"],
        "amount": data["amount"],
    }


def measure(one: dict[str, Any], state: State) -> None:
    """Add a signal to its three cells."""
    head = f"{one['rule']}\t{one['company']}\t{one['pane']}"
    for cell in (f"{head}\t\t", f"{head}\t{one['plan']}\t", f"{head}\t{one['plan']}\t{one['country']}"):
        count, total = state.get(cell, default=(0, 0.0))
        state.set(cell, (count + 1, total + one["amount"]))
    PROGRESS.measured += 1


def main() -> None:
    """Run until everything is measured, then write the cells out of the state's files."""
    app = Application(
        broker_address=GIVEN["bootstrap"],
        consumer_group=GIVEN["app"],
        auto_offset_reset="earliest",
        commit_interval=int(GIVEN["commit_ms"]) / 1000,
        state_dir=GIVEN["state"],
        producer_extra_config={"compression.type": "lz4", "linger.ms": 20},
        loglevel="WARNING",
    )
    sdf = app.dataframe(app.topic(GIVEN["raw"], value_deserializer="json", key_deserializer="bytes"))
    sdf = sdf.filter(fresh, stateful=True)
    sdf = sdf.apply(signal).filter(lambda one: one is not None)
    sdf = sdf.group_by("company")
    sdf = sdf.update(measure, stateful=True)

    sdf.update(lambda _: app.stop() if PROGRESS.ended() else None)
    app.run()
    dump(Path(GIVEN["state"]), Path(GIVEN["out"]))


def dump(state: Path, out: Path) -> None:
    """Every cell that lies in RocksDB: keys are prefix|"cell" with the cell's name in JSON, values are JSON."""
    import json

    from rocksdict import AccessType, Options, Rdict

    with out.open("w") as file:
        for folder in sorted({path.parent for path in state.rglob("CURRENT")}):
            db = Rdict(str(folder), options=Options(raw_mode=True), access_type=AccessType.read_only())
            for key, value in db.items():
                _, _, name = key.partition(b"|")
                if name.count(b"\\t") == 4:
                    count, total = json.loads(value)
                    file.write(f"{json.loads(name)}\t{count}\t{total!r}\n")
            db.close()


main()
