"""Forty changes of a contract: what Avro's rules say of each, and where ours are stricter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

NOTHING: Final = frozenset[str]()
BACKWARD, FORWARD = frozenset({"backward"}), frozenset({"forward"})
BOTH: Final = BACKWARD | FORWARD


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolution:
    """broken: directions that the change breaks;  registry: whether a FULL_TRANSITIVE registry takes it"""

    name: str
    old: str
    new: str
    broken: frozenset[str]
    registry: bool


def record(*fields: Any, name: str = "Visit", **more: Any) -> str:
    return json.dumps({"type": "record", "name": name, "fields": [*fields], **more})


def field(name: str, type: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Kind", "symbols": [*symbols], **more}


def inner(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Inner", "fields": [*fields]}


A: Final = field("a", "string")
MAYBE: Final = ["null", "string"]


def _one(name: str, old: Any, new: Any, broken: frozenset[str] = NOTHING, *, registry: bool | None = None) -> Evolution:
    """A change of one field beside `a`, or of whole records."""
    texts = [one if isinstance(one, str) else record(A, *([one] if one else [])) for one in (old, new)]
    return Evolution(
        name=name, old=texts[0], new=texts[1], broken=broken, registry=not broken if registry is None else registry
    )


EVOLUTIONS: Final[tuple[Evolution, ...]] = (
    _one("nothing", field("x", "long"), field("x", "long")),
    _one("a description", field("x", "long"), field("x", "long", doc="what it is")),
    _one("the order of fields", record(A, field("x", "long")), record(field("x", "long"), A)),
    _one("a field with a default comes", None, field("x", "long", default=0)),
    _one("a nullable field with a default comes", None, field("x", MAYBE, default=None)),
    _one("a nullable field without a default comes", None, field("x", MAYBE), BACKWARD),
    _one("a required field comes", None, field("x", "long"), BACKWARD),
    _one("a required field goes", field("x", "long"), None, FORWARD),
    _one("a field with a default goes", field("x", "long", default=0), None),
    _one("a default comes", field("x", "long"), field("x", "long", default=0)),
    _one("a default goes", field("x", "long", default=0), field("x", "long"), BACKWARD, registry=True),
    _one("a default changes", field("x", "long", default=0), field("x", "long", default=9)),
    _one("a field is renamed", field("x", "long"), field("y", "long"), BOTH),
    _one("a field is renamed, with defaults", field("x", "long", default=0), field("y", "long", default=0)),
    _one("a field is renamed, with an alias", field("x", "long"), field("y", "long", aliases=["x"]), BOTH, registry=False),
    _one("int to long", field("x", "int"), field("x", "long"), FORWARD),
    _one("long to int", field("x", "long"), field("x", "int"), BACKWARD),
    _one("long to double", field("x", "long"), field("x", "double"), FORWARD),
    _one("double to long", field("x", "double"), field("x", "long"), BACKWARD),
    _one("float to double", field("x", "float"), field("x", "double"), FORWARD),
    _one("long to float", field("x", "long"), field("x", "float"), FORWARD),
    _one("text to number", field("x", "string"), field("x", "long"), BOTH),
    _one("boolean to text", field("x", "boolean"), field("x", "string"), BOTH),
    _one("required to nullable", field("x", "string"), field("x", MAYBE), FORWARD),
    _one("nullable to required", field("x", MAYBE), field("x", "string"), BACKWARD),
    _one("the order of a union", field("x", ["null", "string"]), field("x", ["string", "null"])),
    _one("a branch comes", field("x", MAYBE), field("x", ["null", "string", "long"]), FORWARD),
    _one("a branch goes", field("x", ["null", "string", "long"]), field("x", MAYBE), BACKWARD),
    _one("a branch grows", field("x", ["null", "int"]), field("x", ["null", "long"]), FORWARD),
    _one("a symbol comes", field("x", enum("red")), field("x", enum("red", "blue")), FORWARD),
    _one("a symbol goes", field("x", enum("red", "blue")), field("x", enum("red")), BACKWARD),
    _one(
        "a symbol comes, the enum has a default",
        field("x", enum("red", default="red")), field("x", enum("red", "blue", default="red")), FORWARD, registry=True,
    ),
    _one("the order of symbols", field("x", enum("red", "blue")), field("x", enum("blue", "red"))),
    _one("items of a list", field("x", {"type": "array", "items": "string"}), field("x", {"type": "array", "items": "long"}), BOTH),
    _one("items grow", field("x", {"type": "array", "items": "int"}), field("x", {"type": "array", "items": "long"}), FORWARD),
    _one("values of a map", field("x", {"type": "map", "values": "string"}), field("x", {"type": "map", "values": MAYBE}), FORWARD),
    _one("a list to a map", field("x", {"type": "array", "items": "long"}), field("x", {"type": "map", "values": "long"}), BOTH),
    _one("a required field within", field("x", inner(A)), field("x", inner(A, field("y", "long"))), BACKWARD),
    _one("a field with a default within", field("x", inner(A)), field("x", inner(A, field("y", "long", default=1)))),
    _one("a record to text", field("x", inner(A)), field("x", "string"), BOTH),
    _one("a logical type comes", field("x", "long"), field("x", {"type": "long", "logicalType": "timestamp-millis"})),
    _one("the record's name", record(A), record(A, name="Call"), BOTH),
    _one("the record's namespace", record(A), record(A, namespace="acme")),
    _one("two things at once", record(A, field("x", "long")), record(A, field("y", "long")), BOTH),
)  # fmt: skip
