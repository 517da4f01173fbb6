"""Containers: lists and objects translated: literals, `in`, `[ ]`.

What stands in a list or an object is of one kind, so that an element has a kind before any event is seen.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from milepost.schemas.field_types import FieldType
from milepost.topology.cel import Const, ListOf, Node, Struct
from milepost.topology.expression_part import Fault, Part, element, fails, made
from milepost.topology.functions import whole

if TYPE_CHECKING:
    from milepost.topology.translate import Translator

SCALARS: Final = ("number", "string", "boolean")
TIMES: Final = ("timestamp", "duration")


def in_literals(translator: Translator, node: Node, left: Part, right: ListOf) -> Part:
    """`in` of a list that is written out: a set, where it is of constants."""
    parts = [translator.part(one) for one in right.elements]
    if left.kind == "mixed" or any(one.kind == "mixed" for one in parts):
        return in_(translator, node, left, list_of(translator, right))
    if left.kind not in SCALARS:
        raise Fault(f"in looks for a number, text, true or false, not {left.said}", node.at)
    for one in parts:
        if one.kind != left.kind:
            message = f"in looks for {left.said}, {one.name or 'an element'} is {one.said}"
            raise Fault(message, node.at)
    if not parts:
        raise Fault("in looks in a list that is empty", node.at)
    text = f"({left.text} in [{', '.join(one.text for one in parts)}])"
    constant = all(isinstance(one, Const) for one in right.elements)
    codes = ", ".join(one.code for one in parts)
    items = f"{{{codes}}}" if constant else f"({codes},)"
    code = f"_among({left.code}, {items})" if left.computed and not constant else f"({left.code} in {items})"
    return made("boolean", code, text, left, *parts, fails=fails(left, *parts))


def in_(translator: Translator, node: Node, left: Part, right: Part) -> Part:
    """`in` of a list or of an object's names."""
    failing = left.fails or right.fails or right.nullable
    text = f"({left.text} in {right.text})"
    if right.kind == "mixed" or (left.kind == "mixed" and right.kind in ("list", "map")):
        why, traits = "in of several kinds", translator.searches()
        return made("boolean", "", text, left, right, fails=True, library=why, traits=traits)
    if right.kind == "map":
        if left.kind != "string":
            raise Fault(f"the names in an object are text, {left.name or 'this'} is {left.said}", node.at)
        name = f"_text({left.code})" if left.nullable else left.code  # null is no name: CEL has no overload for it
        return made("boolean", f"({name} in {right.code})", text, left, right)
    if right.kind != "list":
        raise Fault(f"in looks in a list or an object, {right.name or 'this'} is {right.said}", node.at)
    of = element(right.of)
    if of.kind == "mixed" or (of.kind in ("list", "map", "record") and of.kind == left.kind):
        why, traits = "in of several kinds", translator.searches()
        return made("boolean", "", text, left, right, fails=True, library=why, traits=traits)
    if left.kind not in SCALARS or of.kind != left.kind:
        message = f"in looks for {left.said} in a list, {right.name or 'this one'} is of another kind"
        raise Fault(message, node.at)
    items = translator.weighed(replace(right, code=exact(right)))
    code = f"_among({left.code}, {items})" if left.computed else f"({left.code} in {items})"
    return made("boolean", code, text, left, right, fails=failing, traits=translator.searches())


def index(translator: Translator, node: Node, left: Part, right: Node) -> Part:
    """`[ ]` of a list or an object."""
    of = element(left.of)
    if left.kind == "list":
        index = whole(translator, right, "a list's index")
        text = f"{left.text}[{index.text}]"
        at = right.value if isinstance(right, Const) else -1
        positive = isinstance(at, int) and at >= 0
        code = f"{left.code}[{index.code}]" if positive else f"_at({left.code}, {index.code})"
        found = translator.read(of, code, text, left, index)
        return replace(found, fails=True)
    key = translator.part(right)
    text = f"{left.text}[{key.text}]"
    if left.kind == "map":
        if key.kind == "mixed":
            return replace(translator.read(of, "", text, left, key), fails=True)
        if key.kind != "string":
            raise Fault(f"the names in an object are text, {key.name or 'this'} is {key.said}", node.at)
        return replace(translator.read(of, f"{left.code}[{key.code}]", text, left, key), fails=True)
    if left.kind == "mixed":
        return made("mixed", "", text, left, key, fails=True, nullable=True)
    raise Fault(f"[ ] takes a list or an object, {left.name or 'this'} is {left.said}", node.at)


def list_of(translator: Translator, node: ListOf) -> Part:
    """A list that is written out."""
    parts = [translator.part(one) for one in node.elements]
    if not parts:
        raise Fault("a list that is empty", node.at, "size(x) == 0 asks whether a list is empty")
    of = _one_kind(parts, node)
    code = f"[{', '.join(one.code for one in parts)}]"
    text = f"[{', '.join(one.text for one in parts)}]"
    computed = any(one.computed for one in parts)
    return made("list", code, text, *parts, fails=fails(*parts), computed=computed, of=of)


def map_of(translator: Translator, node: Struct) -> Part:
    """An object that is written out; made once where it is constant."""
    if node.message:
        raise Fault(f"{node.message} is a protobuf message; rules have none", node.at, reason="message")
    keys, values = node.inner[::2], [translator.part(one) for one in node.inner[1::2]]
    names = [one.value for one in keys if isinstance(one, Const) and isinstance(one.value, str)]
    if len(names) != len(keys) or len(set(names)) != len(names):
        raise Fault("the names in an object are texts, each once", node.at, reason="keys")
    if not values:
        raise Fault("an object that is empty", node.at, "size(x) == 0 asks whether an object is empty")
    of = _one_kind(values, node)
    code = f"{{{', '.join(f'{name!r}: {one.code}' for name, one in zip(names, values, strict=True))}}}"
    spelled = [json.dumps(name, ensure_ascii=False) for name in names]
    text = f"{{{', '.join(f'{name}: {one.text}' for name, one in zip(spelled, values, strict=True))}}}"
    if all(isinstance(one, Const) for one in node.inner):  # made once, not for each event
        known = {
            name: float(one.value) if isinstance(one.value, int) and one.kind != "bool" else one.value
            for name, one in zip(names, node.inner[1::2], strict=True)
            if isinstance(one, Const)
        }
        code = f"_k{len(translator.constants)}"
        translator.constants[code] = known
    computed = any(one.computed for one in values)
    return made("map", code, text, *values, fails=fails(*values), computed=computed, of=of)


def _one_kind(parts: list[Part], node: Node) -> FieldType:
    kinds = {one.kind for one in parts} - {"null"}
    first = next((one for one in parts if one.kind != "null"), parts[0])
    if "mixed" in kinds:
        return FieldType(kind="mixed", nullable=True)
    if len(kinds) != 1 or first.kind in TIMES:
        said = " and ".join(sorted({one.said for one in parts}))
        message = f"what stands in a list or an object is of one kind, here it is {said}"
        raise Fault(message, node.at, reason="several_kinds")
    if first.kind in ("list", "map", "record") and any(not alike(one.of, first.of) for one in parts):
        raise Fault("the lists or objects in a list are of several kinds", node.at, reason="several_kinds")
    return _as_type(parts)


def _as_type(parts: list[Part]) -> FieldType:
    """The type of what stands in a list: parts of one kind, or null."""
    first = next(one for one in parts if one.kind != "null")
    nullable = any(one.nullable for one in parts)
    if first.kind == "record" and first.of is not None:
        return FieldType(kind="record", nullable=nullable, fields=first.of.fields)
    assert first.kind != "timestamp" and first.kind != "duration"
    return FieldType(kind=first.kind, nullable=nullable, of=first.of)


def alike(one: FieldType | None, other: FieldType | None) -> bool:
    """Whether two lists' elements are of one kind; which numbers are whole and what may be null does not matter."""
    if one is None or other is None:
        return one is other
    if one.kind in ("record", "map", "list"):
        return one == other
    return one.kind == other.kind


def both(left: Part, right: Part) -> FieldType:
    """The type of the elements of two lists together."""
    one, other = element(left.of), element(right.of)
    return replace(one, nullable=one.nullable or other.nullable, whole=one.whole or other.whole)


def exact(inner: Part) -> str:
    """A list's code, whole numbers as doubles: beyond 2^53 Python compares more exactly than doubles do."""
    of = element(inner.of)
    return f"_floats({inner.code})" if of.kind == "number" and of.whole else inner.code
