"""Uncompiled: which expressions of a catalog the library evaluates, for `plan` to say.

They mean the same and take some tens of microseconds an event instead of one; a rule for every event of a busy source
is worth writing another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from milepost.topology.definitions import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncompiled:
    """An expression that the library evaluates.  place: `when`, `fields.NAME`;  why: what in it is not compiled"""

    rule: str
    place: str
    text: str
    why: str

    def __str__(self) -> str:
        return f"by the library: {self.rule} {self.place}: {self.text} ({self.why})"


def uncompiled(rules: Mapping[str, Rule]) -> tuple[Uncompiled, ...]:
    """In the order of the rules' names, the condition before the fields."""
    return tuple(one for name in sorted(rules) for one in _of(rules[name]))


def _of(rule: Rule) -> Iterator[Uncompiled]:
    places = {"when": rule.when} | {f"fields.{name}": rule.fields[name] for name in sorted(rule.fields)}
    for place, expression in places.items():
        if expression is not None and not expression.compiled:
            yield Uncompiled(rule=rule.name, place=place, text=expression.text, why=expression.library)
