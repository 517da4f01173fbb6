"""CEL as a tree: what the library parsed, read back.

`cel-expr-python` parses an expression and hands its syntax tree out as protobuf bytes (`cel.expr.ParsedExpr`).  This
module reads those bytes into small nodes with their places in the text.  Types are not the library's matter here:
`expressions.py` knows the contracts.

Source: google/api/expr, `cel/expr/syntax.proto`.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from cel_expr_python import cel

TEXT_MAX: Final = 4096
"""Bytes of an expression, at most."""
DEPTH_MAX: Final = 32
"""Levels of an expression's tree, at most; the library's parser has the same bound for brackets and operators."""
NODES_MAX: Final = 1000
"""Nodes of an expression's tree, at most; a loop is about six."""
_BRACKETS_MAX: Final = 64
TOO_DEEP: Final = f"an expression has at most {DEPTH_MAX} levels"

RESERVED: Final = frozenset(
    {
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "type",
        "var",
        "void",
        "while",
    }
)
"""Words that cannot be the name of a variable."""


class Syntax(Exception):
    """An expression that is not CEL, or beyond the bounds.  `offset`: characters from its start."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.message, self.offset = message, offset


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree.  `at`: where it stands in the text, in characters (an operator's own place for a call)."""

    at: int


@dataclass(frozen=True, slots=True)
class Const(Node):
    """A literal.  kind: null bool int uint double string bytes."""

    kind: str
    value: bool | int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class Ident(Node):
    name: str


@dataclass(frozen=True, slots=True)
class Select(Node):
    """`operand.name`, or `has(operand.name)` with `test`."""

    operand: Node
    name: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function, an operator (`_+_`, `_&&_`, `_?_:_`, `@in`) or a method (`target`)."""

    target: Node | None
    function: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    elements: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Struct(Node):
    """A map literal, or a message's when it has a name.  `inner`: its keys and values, one after the other."""

    message: str
    inner: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(Node):
    """What the macros `all exists exists_one map filter` become.

    name, result: what is bound inside: the element, and what was collected so far
    over:         the list or map
    inner:        the first value collected, the condition to go on, the step, the result
    """

    name: str
    result: str
    over: Node
    inner: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """A comprehension, read back as the macro it was written as.  `test` and `to` as the macro has them, or None."""

    macro: Literal["all", "exists", "exists_one", "filter", "map"]
    name: str
    over: Node
    test: Node | None
    to: Node | None


def parse(text: str) -> Node:
    """The tree of an expression.  Raises Syntax."""
    if len(text.encode()) > TEXT_MAX:
        raise Syntax(f"an expression has at most {TEXT_MAX} bytes, this one {len(text.encode())}")
    if not text.strip():
        raise Syntax("an expression was expected, nothing came")
    depth = 0
    for offset, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth > _BRACKETS_MAX:  # before the library's parser sees it
            raise Syntax("brackets are nested too deeply", offset)
    try:
        parsed = _parser().compile(text, disable_check=True).serialize()
    except RuntimeError as error:
        raise as_syntax(error, text) from None
    body = next(value for number, value in _fields(parsed) if number == 2)  # google.protobuf.Any.value
    assert isinstance(body, bytes)
    expr, info = b"", b""
    for number, value in _fields(body):
        assert isinstance(value, bytes)
        if number == 2:
            expr = value
        elif number == 3:
            info = value
    return _Reader(_positions(info)).node(expr, 0)


def as_syntax(error: Exception, text: str) -> Syntax:
    """The library's message, cut to its first fault, with its place in `text`."""
    if "recursion" in str(error):
        return Syntax(TOO_DEEP)
    found = re.search(r"ERROR: <input>:(\d+):(\d+): (.*)", str(error))
    if found is None:
        return Syntax(str(error).splitlines()[0])
    line, column = int(found[1]), int(found[2])
    before = sum(len(one) + 1 for one in text.split("\n")[: line - 1])
    return Syntax(found[3].removeprefix("Syntax error: "), before + column - 1)


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Select(operand=operand):
            return (operand,)
        case Call(target=target, args=args):
            return args if target is None else (target, *args)
        case ListOf(elements=inner) | Struct(inner=inner):
            return inner
        case Comprehension(over=over, inner=inner):
            return (over, *inner)
    return ()


def plain(name: str) -> bool:
    """Whether a name can stand behind a dot as it is; others stand in back quotes."""
    return name.isascii() and name.isidentifier() and name not in ("false", "in", "null", "true")


def dotted(node: Node) -> tuple[str, ...] | None:
    """`a.b.c` as ("a", "b", "c"), or None when the node is no plain path."""
    match node:
        case Ident(name=name):
            return (name,)
        case Select(operand=operand, name=name, test=False) if plain(name):
            before = dotted(operand)
            return None if before is None else (*before, name)
    return None


def as_loop(node: Comprehension) -> Loop:
    """The macro behind a comprehension: each has a step of its own shape.  Raises Syntax for any other."""
    step, made = node.inner[2], functools.partial(Loop, name=node.name, over=node.over)
    match step:
        case Call(function="_&&_", args=(Ident(name=node.result), test)):
            return made("all", test=test, to=None)
        case Call(function="_||_", args=(Ident(name=node.result), test)):
            return made("exists", test=test, to=None)
        case Call(function="_?_:_", args=(test, Call(function="_+_", args=(_, Const(kind="int"))), _)):
            return made("exists_one", test=test, to=None)
        case Call(function="_?_:_", args=(test, Call(function="_+_", args=(_, ListOf(elements=(to,)))), _)):
            same = isinstance(to, Ident) and to.name == node.name
            return made("filter", test=test, to=None) if same else made("map", test=test, to=to)
        case Call(function="_+_", args=(_, ListOf(elements=(to,)))):
            return made("map", test=None, to=to)
    raise Syntax("a loop of an unknown kind", node.at)


@cache
def _parser() -> cel.Env:
    return cel.NewEnv()


class _Reader:
    def __init__(self, positions: dict[int, int]) -> None:
        self.positions = positions
        self.nodes = 0

    def node(self, data: bytes, depth: int) -> Node:
        at, kind, body = 0, 0, b""
        for number, value in _fields(data):
            if number == 2 and isinstance(value, int):
                at = self.positions.get(value, 0)
            elif isinstance(value, bytes):
                kind, body = number, value
        self.nodes += 1
        if depth >= DEPTH_MAX:
            raise Syntax(TOO_DEEP, at)
        if self.nodes > NODES_MAX:
            raise Syntax(f"an expression has at most {NODES_MAX} nodes", at)

        def inner(one: object) -> Node:
            assert isinstance(one, bytes)
            return self.node(one, depth + 1)

        parts = list(_fields(body))
        known = dict(parts)
        match kind:
            case 3:
                return _const(at, parts)
            case 4:
                return Ident(at, _text(known[1]))
            case 5:
                return Select(at, inner(known[1]), _text(known[2]), bool(known.get(3, 0)))
            case 6:
                target = inner(known[1]) if 1 in known else None
                return Call(at, target, _text(known[2]), tuple(inner(value) for number, value in parts if number == 3))
            case 7:
                return ListOf(at, tuple(inner(value) for number, value in parts if number == 1))
            case 8:
                entries = [dict(_fields(value)) for number, value in parts if number == 2 and isinstance(value, bytes)]
                made = tuple(inner(entry[part]) for entry in entries for part in (3, 4) if part in entry)
                return Struct(at, _text(known.get(1, b"")), made)
            case 9:
                over, *rest = (inner(known[part]) for part in (2, 4, 5, 6, 7))
                return Comprehension(at, _text(known[1]), _text(known[3]), over, tuple(rest))
        raise Syntax("an expression of an unknown kind", at)


def _const(at: int, parts: list[tuple[int, int | bytes]]) -> Const:
    kinds = {1: "null", 2: "bool", 3: "int", 4: "uint", 5: "double", 6: "string", 7: "bytes"}
    number, value = parts[-1]
    kind = kinds[number]
    match kind, value:
        case "null", _:
            return Const(at, kind, None)
        case "bool", int():
            return Const(at, kind, bool(value))
        case "int", int():
            return Const(at, kind, value - (1 << 64) if value >= 1 << 63 else value)
        case "double", bytes():
            return Const(at, kind, float(struct.unpack("<d", value)[0]))
        case "string", bytes():
            return Const(at, kind, value.decode())
        case _:
            return Const(at, kind, value)


def _positions(info: bytes) -> dict[int, int]:
    """Node id -> characters from the start of the text."""
    found = {}
    for number, value in _fields(info):
        if number == 4 and isinstance(value, bytes):
            entry = dict(_fields(value))
            key, at = entry.get(1, 0), entry.get(2, 0)
            if isinstance(key, int) and isinstance(at, int):
                found[key] = at
    return found


def _text(value: int | bytes) -> str:
    assert isinstance(value, bytes)
    return value.decode()


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) pairs of a protobuf message: varints as ints, everything else as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case other:
                raise AssertionError(f"wire type {other}")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
