"""Fates: what can become of a record, by leg and stage: the closed list that `Fold.count` takes its names from.

    result   it went on, or changed state          drop   no effect, as intended
    dead     its contract is broken: a dead letter control  the engine's own traffic

A name that is not in this list is a mistake (a test reads the code); telemetry shows it as `other`, so that the number
of series is bounded whatever happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from milepost.schemas.errors import REASONS

Kind = Literal["result", "drop", "dead", "control"]
OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """One of them: where it is decided, and what it means."""

    name: str
    stage: str
    kind: Kind
    about: str


def _some(stage: str, kind: Kind, abouts: Mapping[str, str]) -> list[Fate]:
    return [Fate(name=name, stage=stage, kind=kind, about=about) for name, about in abouts.items()]


_STAGE_OF: Final[Mapping[str, str]] = {
    "id_conflict": "dedupe",
    "missing_key": "identity",
    "identity_changed": "identity",
    "out_of_range": "signals",
    "rule_error": "signals",
}
"""Where a reason is found as a rule; the others when a record is decoded."""


def _dead(stage: str = "") -> list[Fate]:
    return [
        Fate(
            name=f"dead:{reason}",
            stage=stage or _STAGE_OF.get(reason, "decode"),
            kind="dead",
            about="the record is a dead letter",
        )
        for reason in sorted(REASONS)
    ]


def _dead_pairs() -> list[Fate]:
    about = "the pair of event and rule is a dead letter; other rules of the event hold"
    of_writes = ("missing_key", "contract_violation")
    return [
        Fate(name=f"dead_pair:{reason}", stage="writes" if reason in of_writes else "signals", kind="dead", about=about)
        for reason in sorted(REASONS)
    ]


_TURNS: Final = {
    "reemitted": "sent again after a crash: it was taken before",
    "gap": "one before it has not come yet: it will be sent again",
}
_VERDICT: Final = {"verdict": "says of another record that it is passed over"}

_INGEST: Final = (
    *_some("decode", "result", {"read": "a record of somebody's, read"}),
    *_some(
        "decode",
        "control",
        {
            "marker": "definitions hold from here on",
            "tick": "time, said once a second",
            **_VERDICT,
            "bad_stamp": "milepost-first without a right MAC: ignored",
        },
    ),
    *_some(
        "decode",
        "drop",
        {"foreign_tombstone": "a tombstone that the engine did not write", "misrouted": "forwarded to its place"},
    ),
    *_some("dedupe", "result", {"accepted": "the first of its id and revision"}),
    *_some("dedupe", "drop", {"duplicate": "it came before"}),
    *_some(
        "dedupe",
        "control",
        {"copy": "the engine's own copy of a first record", "owed_lost": "a first record is gone: no copy can be made"},
    ),
    *_some("signals", "result", {"signal": "a signal of it", "void": "a void that takes its signals back"}),
    *_some(
        "signals",
        "drop",
        {"no_rule": "no rule makes a signal of its type", "rule_declined": "`when` of a rule is false"},
    ),
    *_some("writes", "result", {"change": "a change of a record"}),
    *_dead(),
    *_dead_pairs(),
)

_MEASURE: Final = (
    *_some("metrics", "result", {"taken": "the signals of an event, kept as a fact and counted"}),
    *_some("metrics", "drop", {"superseded": "a higher revision is known: it counts nothing"}),
    *_some(
        "metrics",
        "control",
        {
            "tick": "how far a raw partition is",
            **_TURNS,
            "absorbed": "a row that held it already after a restore",
            "folded_into_other": "a dimension has too many values that day: counted as __other__",
            **_VERDICT,
        },
    ),
    *_dead("metrics"),
)

_RECORD: Final = (
    *_some("records", "result", {"taken": "a change of a record, kept"}),
    *_some("records", "control", {**_TURNS, **_VERDICT}),
    *_dead("records"),
)


def _by_name(fates: tuple[Fate, ...]) -> Mapping[str, Fate]:
    return MappingProxyType({one.name: one for one in fates})


FATES: Final[Mapping[str, Mapping[str, Fate]]] = MappingProxyType(
    {"ingest": _by_name(_INGEST), "measure": _by_name(_MEASURE), "record": _by_name(_RECORD)}
)
"""Leg -> name -> what it is."""


def of_stage(leg: str, stage: str, *kinds: Kind) -> list[str]:
    """The names that a stage of a leg decides, of the kinds given (or all), in their order."""
    return [one.name for one in FATES[leg].values() if one.stage == stage and (not kinds or one.kind in kinds)]
