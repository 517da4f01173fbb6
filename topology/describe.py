"""Describe: the line as text, as a picture, and as data to compare with a broker.

The text is a test (a change of the line shows in it), the picture stands in the README, the data is what
`milepost describe --check` holds against the topics and agents that really run.
"""

from __future__ import annotations

from typing import Any

from milepost.topology import line
from milepost.topology.fates import FATES

_HOW = {
    "each": "changelog",
    "packed": "changelog, packed",
    "source": "rebuilt from its source topic",
    "derived": "rebuilt from cells",
}


def text() -> str:
    """The line in words: topics with keys and partitions, legs with stages and stores."""
    out = ["Topics"]
    for topic in line.all_topics():
        count = "n partitions" if topic.partitions is None else f"{topic.partitions} partition"
        out.append(f"  {topic.name:<18} {count:<13} key: {topic.key}; partition from: {topic.partition_from}")
    for leg in line.LEGS:
        out.append(f"Leg {leg.name}")
        out.append(f"  reads {leg.reads}, grouped by {leg.grouped_by}")
        out.append(f"  stages: {' -> '.join(leg.stages)}")
        out.append(f"  writes: {', '.join(leg.writes)}")
        for store in leg.stores:
            out.append(f"  store {store.name:<8} {store.holds} ({_HOW[store.changelog]})")
        out.append(f"  changelog: {leg.changelog}")
    for asking in line.ASKING:
        out.append(f"Leg {asking.name}")
        out.append(f"  asks: {', '.join(asking.asks)}, as shown at each bucket end")
        out.append(f"  stages: {' -> '.join(asking.stages)}")
        out.append(f"  writes: {', '.join(asking.writes)}")
    return "\n".join(out) + "\n"


def mermaid() -> str:
    """The line as a Mermaid flow chart: topics are cylinders on their side, legs boxes, stores cylinders."""
    out = ["flowchart LR", "  sources([sources])", "  questions([questions])"]
    out.extend(f"  {_id(topic.name)}[/{topic.name}/]" for topic in line.TOPICS)
    for leg in line.LEGS:
        out.append(f'  {leg.name}["{leg.name}<br/>{" · ".join(leg.stages)}"]')
        stores = " · ".join(store.name for store in leg.stores)
        out.append(f'  {leg.name}_stores[("{stores}")]')
    out.extend(f'  {one.name}["{one.name}<br/>{" · ".join(one.stages)}"]' for one in line.ASKING)
    out.append("  sources --> raw_events")
    for leg in line.LEGS:
        out.append(f"  {_id(leg.reads)} --> {leg.name}")
        out.extend(f"  {leg.name} --> {_id(topic)}" for topic in leg.writes if topic != leg.reads)
        out.append(f"  {leg.name} --- {leg.name}_stores")
    out.extend(f"  definitions --> {leg.name}" for leg in line.LEGS)
    for one in line.ASKING:
        out.append(f"  questions --> {one.name}")
        out.extend(f"  {one.name} --> {_id(topic)}" for topic in one.writes)
    out.append("  identity_links --> questions")
    out += ("  access --> questions", "  questions --> audit")
    out.extend(f"  {name}_stores --> questions" for name in ("measure", "record"))
    return "\n".join(out) + "\n"


def data(partitions: int) -> dict[str, Any]:
    """What must be true of the broker and of the worker: topic -> partitions, agent -> source topic, changelogs."""
    return {
        "topics": {topic.name: topic.partitions or partitions for topic in line.all_topics()},
        "agents": {leg.name: leg.reads for leg in line.LEGS},
        "changelogs": {leg.name: leg.changelog for leg in line.LEGS},
    }


def legs() -> list[dict[str, Any]]:
    """The legs in their order, as data: what each reads, does, holds and writes, and every fate of its stages."""
    running = [
        {
            "name": leg.name,
            "reads": leg.reads,
            "grouped_by": leg.grouped_by,
            "stages": list(leg.stages),
            "stores": [{"name": store.name, "holds": store.holds} for store in leg.stores],
            "writes": list(leg.writes),
            "fates": {
                name: {"stage": fate.stage, "kind": fate.kind, "about": fate.about}
                for name, fate in FATES.get(leg.name, {}).items()
            },
        }
        for leg in line.LEGS
    ]
    asking = [
        {"name": one.name, "asks": list(one.asks), "stages": list(one.stages), "writes": list(one.writes)}
        for one in line.ASKING
    ]
    return running + asking


def _id(name: str) -> str:
    return name.replace("-", "_")
