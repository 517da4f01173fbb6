"""Samples: an event made from a contract, and a real one with personal data masked, for people to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from milepost.schemas.contracts import Contract
from milepost.schemas.errors import ContractError, RuleError
from milepost.schemas.records import Envelope
from milepost.topology.definitions import Rule, Source

MASK: Final = "•••"
TEXT_MAX: Final = 200
"""Letters of a value that an example shows."""
LISTED_MAX: Final = 5
"""Elements of a list or map that an example shows."""
SAMPLE_TIME: Final = "2026-01-01T12:00:00Z"
PEOPLE: Final = "person"
"""Keys of this entity are masked whether or not they are declared as personal data."""


def event(event_type: str, contract: Contract, source: Source) -> dict[str, Any]:
    """An event whose data the contract takes."""
    data = _sample(json.loads(contract.canonical), "", {})
    return {
        "org": "…",
        "source": source.name,
        "id": f"{event_type}-1",
        "type": event_type,
        "time": SAMPLE_TIME,
        "data": data,
    }


def masked(given: Envelope, contract: Contract, source: Source) -> dict[str, Any] | None:
    """A real event as it may be shown: what its contract declares, with personal data and keys of people masked and
    long values cut; its id is left out, and fields that nobody declared.  None where the contract does not take it."""
    try:
        data = _cut(contract.check(given.data))
    except ContractError:
        return None
    for path in (*source.pii, *(one.path for one in source.identities if one.entity == PEOPLE)):
        _mask(data, path)
    return {"source": source.name, "type": given.type, "time": given.time, "data": data}


def signal(rule: Rule, given: Mapping[str, Any] | None, contract: Contract) -> str | None:
    """What a rule makes of an example, as JSON; None where it makes nothing."""
    if given is None:
        data, envelope = _sample(json.loads(contract.canonical), "", {}), {"type": rule.on, "time": SAMPLE_TIME}
    else:
        data, envelope = given.get("data"), {"type": str(given.get("type")), "time": str(given.get("time"))}
    try:
        checked = contract.check(data)
        seen = {**envelope, "source": "", "org": ""}
        if rule.when is not None and not rule.when.evaluate(checked, seen):
            return None
        return written({"signal": rule.name} | {name: one.evaluate(checked, seen) for name, one in rule.fields.items()})
    except (ContractError, RuleError):
        return None  # what was masked or cut is no value of its kind any more


def written(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _sample(schema: Any, name: str, known: dict[str, Any]) -> Any:
    """A value that a contract's canonical schema takes; a declared default where there is one."""
    if isinstance(schema, list):
        return _sample(next((one for one in schema if one != "null"), "null"), name, known)
    if isinstance(schema, str):
        if schema in known:
            return _sample(known[schema], name, known)
        return {"null": None, "boolean": True, "int": 1, "long": 1, "float": 1.5, "double": 1.5}.get(
            schema, name or "text"
        )
    match schema["type"]:
        case "record":
            known[schema["name"]] = schema
            return {
                one["name"]: one["default"]
                if one.get("default") is not None
                else _sample(one["type"], one["name"], known)
                for one in schema["fields"]
            }
        case "enum":
            known[schema["name"]] = schema
            return schema["symbols"][0]
        case "array":
            return [_sample(schema["items"], name, known)]
        case "map":
            return {"key": _sample(schema["values"], name, known)}
        case inner:
            return _sample(inner, name, known)


def _cut(value: Any) -> Any:
    match value:
        case str():
            return value if len(value) <= TEXT_MAX else value[:TEXT_MAX] + "…"
        case dict():
            return {name: _cut(inner) for name, inner in list(value.items())[:100]}
        case list():
            return [_cut(inner) for inner in value[:LISTED_MAX]]
    return value


def _mask(value: Any, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, dict) and value.get(path[-1]) is not None:
        value[path[-1]] = MASK
