"""Repairs, by the oracle: what a repair sends, said without a program of the engine's.

A dead letter's event is sent again under (revision, repair + 1), mapped; not where its event was accepted (but for a
conflict or a pair, which an accepted event has), nor where that repair was; of several with one name the last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.oracle import avro, keys
from tests.oracle.log import DeadLetter, Reading

Steps = Sequence[Mapping[str, Any]]


def resends(
    log: Sequence[Sequence[Any]], reading: Reading, letters: Iterable[DeadLetter], steps: Steps
) -> dict[bytes, dict[str, Any]]:
    """Raw key -> event, of these dead letters that have a name and can be mapped."""
    accepted = {(one.org, one.source, one.id, *one.rank) for one in reading.events}
    found: dict[bytes, dict[str, Any]] = {}
    last: dict[bytes, int] = {}
    for letter in letters:
        record = log[letter.partition][letter.offset]
        one = _read(record.value)
        if one is None:
            continue
        name = one["org"], one["source"], one["id"]
        revision, repair = one.get("revision", 0), one.get("repair", 0)
        key = keys.raw_key(*name, revision, repair + 1)
        if letter.offset < last.get(key, -1):
            continue
        last[key] = letter.offset
        found.pop(key, None)
        if (*name, revision, repair + 1) in accepted:
            continue
        if (*name, revision, repair) in accepted and letter.rule is None and letter.reason != "id_conflict":
            continue
        if mapped(one, steps):
            found[key] = {**one, "repair": repair + 1}
    return found


def mapped(event: dict[str, Any], steps: Steps) -> bool:
    """Apply the steps to an event; False: one of them has no value for it."""
    data = event.get("data")
    if not isinstance(data, dict):
        return False
    for step in steps:
        if "set" in step:
            if step["set"] in ("event.type", "event.time"):
                event[step["set"][6:]] = step["value"]
            else:
                data[step["set"][5:]] = step["value"]
        elif "rename" in step:
            name = step["rename"][5:]
            if name in data:
                if step["to"] in data:
                    return False
                data[step["to"]] = data.pop(name)
        elif "delete" in step:
            data.pop(step["delete"][5:], None)
        else:
            name = step["cast"][5:]
            value = data.get(name)
            if value is None:
                continue
            if step["as"] == "text":
                if isinstance(value, dict | list):
                    return False
                data[name] = value if isinstance(value, str) else json.dumps(value)
            else:
                try:
                    data[name] = value if type(value) in (int, float) else float(str(value))
                except ValueError:
                    return False
                if isinstance(value, bool):
                    return False
    return True


def _read(value: bytes | None) -> dict[str, Any] | None:
    """An event with a name; None where there is none."""
    if value is None:
        return None
    try:
        if value[:2] == avro.MAGIC:
            one = avro.decode(avro.schema("RawEvent"), value)
            one = {**one, "data": json.loads(one["data"])}
        else:
            one = json.loads(value)
    except (KeyError, ValueError, RecursionError):
        return None
    if not isinstance(one, dict):
        return None
    named = all(isinstance(one.get(name), str) and one[name] for name in ("org", "source", "id"))
    whole = all(type(one.get(name, 0)) is int and one.get(name, 0) >= 0 for name in ("revision", "repair"))
    return one if named and whole else None
