"""Manual, the line: its legs and stages, and what can become of a record in each, from what the code declares."""

from __future__ import annotations

from typing import Final

from milepost.topology import fates, line
from milepost.topology.fates import Kind
from milepost.topology.manual import Code, Entry, Row, Section, Table, Text, joined, text

_KINDS: Final[tuple[tuple[Kind, str], ...]] = (
    ("result", "Goes on"), ("drop", "Has no effect, as intended"), ("dead", "Becomes a dead letter"),
    ("control", "Is the engine’s own"),
)  # fmt: skip


def section() -> Section:
    """Each leg with its stages: what reads it, what it keeps and writes, and its fates."""
    entries = []
    for leg in line.LEGS:
        facts: list[tuple[str, Text]] = [
            ("Reads", (Code(leg.reads), f", grouped by {leg.grouped_by}")),
            ("Keeps", joined((text(Code(one.name), f" ({one.holds})") for one in leg.stores), "; ")),
            ("Writes", joined(map(Code, leg.writes))),
        ]
        rows = tuple(_stage(leg.name, one) for one in leg.stages)
        table = Table(head=("Stage", *(head for _, head in _KINDS)), rows=rows)
        meaning = text("Stages: ", joined(leg.stages, " → "), ".")
        entries.append(
            Entry(anchor=f"leg-{leg.name}", title=f"Leg {leg.name}", meaning=meaning, facts=tuple(facts), table=table)
        )
    for one in line.ASKING:
        meaning = text("Asks ", joined(one.asks, " and "), ", as shown at each quarter of an hour.")
        rows = tuple(Row(anchor=f"stage-{stage}", cells=((stage,),)) for stage in one.stages)
        writes = (("Writes", joined(map(Code, one.writes))),)
        table = Table(head=("Stage",), rows=rows)
        entries.append(
            Entry(anchor=f"leg-{one.name}", title=f"Leg {one.name}", meaning=meaning, facts=writes, table=table)
        )
    about = "What happens to a record on its way, and what can become of it where."
    return Section(anchor="line", title="The line", about=about, entries=tuple(entries))


def _stage(leg: str, stage: str) -> Row:
    cells: list[Text] = [(stage,)]
    for kind, _ in _KINDS:
        known = [fates.FATES[leg][name] for name in fates.of_stage(leg, stage, kind)]
        if kind == "dead":
            cells.append(joined(Code(one.name.partition(":")[2]) for one in known) if known else ("–",))
        else:
            said = (text(Code(one.name), f": {one.about}") for one in known)
            cells.append(joined(said, "; ") if known else ("–",))
    return Row(anchor=f"stage-{stage}", cells=tuple(cells))
