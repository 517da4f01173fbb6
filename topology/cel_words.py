"""CEL in words: an expression as an English phrase, where English can say it shortly.

    data.dep_delay <= 15.0 && data.origin in ["EWR", "JFK"]
    dep_delay is at most 15 and origin is one of "EWR", "JFK"

What has no short phrase (a loop, a long list) has none: whoever shows it shows the expression itself, which stands
beside the words anyway.  Only the tree is read (`cel.py`), so a space or a bracket more makes no difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from milepost.topology.cel import Call, Const, ListOf, Node, Select, Syntax, dotted, parse

WORDS_MAX: Final = 400
"""A phrase of more letters is none."""
LISTED_MAX: Final = 12
"""Values of a list that a phrase names."""
_COMPARED: Final[Mapping[str, str]] = {
    "_<=_": "is at most",
    "_<_": "is below",
    "_>=_": "is at least",
    "_>_": "is above",
    "_==_": "is",
    "_!=_": "is not",
}
_TEXTS: Final[Mapping[str, str]] = {
    "startsWith": "begins with",
    "endsWith": "ends with",
    "contains": "contains",
    "matches": "matches",
}
_SIGNS: Final[Mapping[str, str]] = {"_+_": "+", "_-_": "−", "_*_": "×", "_/_": "÷", "_%_": "modulo"}
_FUNCTIONS: Final[Mapping[str, str]] = {
    "size": "the length of {}",
    "int": "{} without decimals",
    "double": "{}",
    "string": "{} as text",
    "timestamp": "the time {}",
    "duration": "the duration {}",
}


class _Unsaid(Exception):
    """There is no short phrase for it."""


@lru_cache(maxsize=4096)
def in_words(text: str) -> str:
    """The phrase of an expression, or "" where there is none."""
    try:
        said = _phrase(parse(text))
    except (_Unsaid, Syntax):
        return ""
    return said if len(said) <= WORDS_MAX else ""


def plain(name: str) -> str:
    """A path as people say it: `data.dep_delay` is dep_delay, `event.type` is the event's type."""
    if name.startswith("event."):
        return f"the event’s {name.removeprefix('event.')}"
    return name.removeprefix("data.")


def _phrase(node: Node) -> str:
    match node:
        case Call(target=None, function="_&&_", args=args):
            return " and ".join(_bracketed(one, "_||_", _phrase) for one in _flat(args, "_&&_"))
        case Call(target=None, function="_||_", args=args):
            return " or ".join(_bracketed(one, "_&&_", _phrase) for one in _flat(args, "_||_"))
        case Call(target=None, function="!_", args=(one,)):
            return _not(one)
        case Call(target=None, function="_?_:_", args=(condition, left, right)):
            return f"{_phrase(left)} if {_phrase(condition)}, else {_phrase(right)}"
        case Call(target=None, function=sign, args=(left, right)) if sign in _COMPARED:
            return _comparison(sign, left, right)
        case Call(target=None, function="@in", args=(left, right)):
            return f"{_value(left)} is {_among(right)}"
        case Call(target=Node() as target, function=name, args=(one,)) if name in _TEXTS:
            return f"{_value(target)} {_TEXTS[name]} {_value(one)}"
        case Select(test=True):
            return f"{_path(node)} is given"
    return _value(node)


def _not(node: Node) -> str:
    match node:
        case Select(test=True):
            return f"{_path(node)} is not given"
        case Call(target=None, function="@in", args=(left, right)):
            return f"{_value(left)} is not {_among(right)}"
        case Call(target=Node() as target, function=name, args=(one,)) if name in _TEXTS:
            return f"not: {_value(target)} {_TEXTS[name]} {_value(one)}"
        case Select() if dotted(node) is not None:
            return f"{_path(node)} is false"
    return f"not ({_phrase(node)})"


def _comparison(sign: str, left: Node, right: Node) -> str:
    for one, other in ((left, right), (right, left)):
        if isinstance(other, Const) and other.kind == "null":
            return f"{_value(one)} is {'given' if sign == '_!=_' else 'not given'}"
        if isinstance(other, Const) and other.kind == "bool" and sign in ("_==_", "_!=_"):
            return f"{_value(one)} is {'true' if other.value is (sign == '_==_') else 'false'}"
    if isinstance(left, Const) and not isinstance(right, Const):  # 15 >= x is said of x
        turned = {"_<=_": "_>=_", "_>=_": "_<=_", "_<_": "_>_", "_>_": "_<_"}
        left, right, sign = right, left, turned.get(sign, sign)
    return f"{_value(left)} {_COMPARED[sign]} {_value(right)}"


def _among(node: Node) -> str:
    if not isinstance(node, ListOf):
        return f"in {_value(node)}"
    if not 0 < len(node.elements) <= LISTED_MAX:
        raise _Unsaid
    return f"one of {', '.join(map(_value, node.elements))}"


def _value(node: Node) -> str:
    match node:
        case Const(kind="string", value=value):
            return json.dumps(value, ensure_ascii=False)
        case Const(kind="null"):
            return "nothing"
        case Const(value=bool(value)):
            return "true" if value else "false"
        case Const(value=int() | float() as value):
            return f"{value:,.15g}".replace("-", "−")
        case Call(target=None, function="-_", args=(one,)):
            return f"−{_value(one)}"
        case Call(target=None, function=sign, args=(left, right)) if sign in _SIGNS:
            return f"{_operand(left, sign)} {_SIGNS[sign]} {_operand(right, sign)}"
        case Call(target=None, function=name, args=(one,)) if name in _FUNCTIONS:
            return _FUNCTIONS[name].format(_value(one))
        case Call(target=Node() as target, function="size", args=()):
            return f"the length of {_value(target)}"
        case Call(target=None, function="_?_:_", args=(condition, left, right)):
            return f"({_value(left)} if {_phrase(condition)}, else {_value(right)})"
    return _path(node)


def _operand(node: Node, sign: str) -> str:
    """One side of a sum or product, in brackets where it is another sum or product."""
    nested = isinstance(node, Call) and node.target is None and node.function in _SIGNS
    same = isinstance(node, Call) and node.function == sign and sign in ("_+_", "_*_")
    return f"({_value(node)})" if nested and not same else _value(node)


def _path(node: Node) -> str:
    names = dotted(Select(node.at, node.operand, node.name, False) if isinstance(node, Select) else node)
    if names is None:
        raise _Unsaid
    return plain(".".join(names))


def _flat(args: tuple[Node, ...], sign: str) -> list[Node]:
    """The sides of a chain: (a && b) && c has three."""
    found: list[Node] = []
    for one in args:
        nested = isinstance(one, Call) and one.target is None and one.function == sign
        found += _flat(one.args, sign) if nested and isinstance(one, Call) else [one]
    return found


def _bracketed(node: Node, sign: str, said: Callable[[Node], str]) -> str:
    return f"({said(node)})" if isinstance(node, Call) and node.function in (sign, "_?_:_") else said(node)
