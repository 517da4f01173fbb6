"""A small evaluator for the comparison and boolean subset of CEL: parse to a tree, walk the tree.

Every number is a double.  `&&` and `||` absorb an error of one side when the other side decides (CEL's rule).  Anything
else that goes wrong is an `EvaluationError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<op>&&|\|\||==|!=|<=|>=|[<>!+\-*/%?:.,()\[\]])
    )""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_LITERALS = {"true": True, "false": False, "null": None}
_RELATIONS = ("==", "!=", "<", "<=", ">", ">=", "in")

Node = tuple[Any, ...]


class EvaluationError(Exception):
    """The expression has no value for this input."""


class DivisionByZero(EvaluationError):
    """A division by zero, which a formula answers with a reason of its own."""


def parse(text: str) -> Node:
    """The tree of an expression; ValueError when it is not in the subset."""
    parser = _Parser(text)
    tree = parser.choice()
    if parser.peek() != "":
        raise ValueError(f"unexpected {parser.peek()!r} in {text!r}")
    return tree


def evaluate(tree: Node, names: Mapping[str, Any]) -> Any:
    """The value of a tree over `names` (for a rule: data and event; for a formula: metric names)."""
    return _EVALUATORS[tree[0]](tree, names)


def names_in(tree: Node) -> set[str]:
    """The free names of a tree."""
    if tree[0] == "name":
        return {tree[1]}
    found: set[str] = set()
    for part in tree[1:]:
        for node in part if isinstance(part, list) else [part]:
            if isinstance(node, tuple):
                found |= names_in(node)
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                raise ValueError(f"cannot read {text[place:]!r}")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match.group(kind)))
            place = match.end()
        self.tokens.append(("end", ""))
        self.at = 0

    def peek(self) -> str:
        kind, text = self.tokens[self.at]
        return text if kind in ("op", "name", "end") else "\0"

    def take(self, text: str) -> bool:
        if self.peek() == text and text:
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise ValueError(f"expected {text!r}, found {self.tokens[self.at][1]!r}")

    def choice(self) -> Node:
        tree = self.either()
        if self.take("?"):
            yes = self.either()
            self.expect(":")
            return ("choice", tree, yes, self.choice())
        return tree

    def either(self) -> Node:
        tree = self.both()
        while self.take("||"):
            tree = ("or", tree, self.both())
        return tree

    def both(self) -> Node:
        tree = self.relation()
        while self.take("&&"):
            tree = ("and", tree, self.relation())
        return tree

    def relation(self) -> Node:
        tree = self.sum()
        while self.peek() in _RELATIONS:
            operator = self.tokens[self.at][1]
            self.at += 1
            tree = ("binary", operator, tree, self.sum())
        return tree

    def sum(self) -> Node:
        tree = self.product()
        while self.peek() in ("+", "-"):
            operator = self.tokens[self.at][1]
            self.at += 1
            tree = ("binary", operator, tree, self.product())
        return tree

    def product(self) -> Node:
        tree = self.unary()
        while self.peek() in ("*", "/", "%"):
            operator = self.tokens[self.at][1]
            self.at += 1
            tree = ("binary", operator, tree, self.unary())
        return tree

    def unary(self) -> Node:
        if self.take("!"):
            return ("not", self.unary())
        if self.take("-"):
            return ("minus", self.unary())
        tree = self.primary()
        while True:
            if self.take("."):
                kind, name = self.tokens[self.at]
                if kind != "name":
                    raise ValueError(f"expected a name after '.', found {name!r}")
                self.at += 1
                tree = ("call", name, tree, self.rest_of_list(")")) if self.take("(") else ("select", tree, name)
            else:
                return tree

    def primary(self) -> Node:
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return ("literal", float(text))
        if kind == "string":
            return ("literal", re.sub(r"\\(.)", lambda m: _ESCAPES.get(m.group(1), m.group(0)), text[1:-1]))
        if kind == "name" and text in _LITERALS:
            return ("literal", _LITERALS[text])
        if kind == "name" and self.take("("):
            arguments = self.rest_of_list(")")
            if text == "has" and len(arguments) == 1 and arguments[0][0] == "select":
                return ("has", arguments[0][1], arguments[0][2])
            if text == "size" and len(arguments) == 1:
                return ("call", "size", arguments[0], [])
            raise ValueError(f"{text}() is not in the subset")
        if kind == "name":
            return ("name", text)
        if text == "(":
            tree = self.choice()
            self.expect(")")
            return tree
        if text == "[":
            return ("list", self.rest_of_list("]"))
        raise ValueError(f"unexpected {text!r}")

    def rest_of_list(self, end: str) -> list[Node]:
        items: list[Node] = []
        if self.take(end):
            return items
        while True:
            items.append(self.choice())
            if self.take(end):
                return items
            self.expect(",")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "other"


def _select(tree: Node, names: Mapping[str, Any]) -> Any:
    owner = evaluate(tree[1], names)
    if not isinstance(owner, Mapping) or tree[2] not in owner:
        raise EvaluationError(f"no field {tree[2]}")
    return owner[tree[2]]


def _has(tree: Node, names: Mapping[str, Any]) -> bool:
    owner = evaluate(tree[1], names)
    return isinstance(owner, Mapping) and owner.get(tree[2]) is not None


def _name(tree: Node, names: Mapping[str, Any]) -> Any:
    if tree[1] not in names:
        raise EvaluationError(f"no such name: {tree[1]}")
    return names[tree[1]]


def _boolean(tree: Node, names: Mapping[str, Any]) -> bool | EvaluationError:
    try:
        value = evaluate(tree, names)
    except EvaluationError as error:
        return error
    return value if isinstance(value, bool) else EvaluationError("not a boolean")


def _junction(tree: Node, names: Mapping[str, Any]) -> bool:
    decides = bool(tree[0] == "or")  # `true` decides an or, `false` an and, whatever the other side does
    sides = [_boolean(tree[1], names), _boolean(tree[2], names)]
    if any(side is decides for side in sides):
        return decides
    for side in sides:
        if isinstance(side, EvaluationError):
            raise side
    return not decides


def _negation(tree: Node, names: Mapping[str, Any]) -> bool:
    value = evaluate(tree[1], names)
    if not isinstance(value, bool):
        raise EvaluationError("! of something that is not a boolean")
    return not value


def _minus(tree: Node, names: Mapping[str, Any]) -> float:
    value = evaluate(tree[1], names)
    if _kind(value) != "number":
        raise EvaluationError("- of something that is not a number")
    return -float(value)


def _choice(tree: Node, names: Mapping[str, Any]) -> Any:
    value = evaluate(tree[1], names)
    if not isinstance(value, bool):
        raise EvaluationError("?: of something that is not a boolean")
    return evaluate(tree[2] if value else tree[3], names)


def _call(tree: Node, names: Mapping[str, Any]) -> Any:
    value = evaluate(tree[2], names)
    arguments = [evaluate(part, names) for part in tree[3]]
    if tree[1] == "size" and not arguments and isinstance(value, str | list):
        return float(len(value))
    if isinstance(value, str) and len(arguments) == 1 and isinstance(arguments[0], str):
        if tree[1] == "startsWith":
            return value.startswith(arguments[0])
        if tree[1] == "endsWith":
            return value.endswith(arguments[0])
        if tree[1] == "contains":
            return arguments[0] in value
    raise EvaluationError(f"{tree[1]}() does not apply")


def _binary(tree: Node, names: Mapping[str, Any]) -> Any:
    operator, left, right = tree[1], evaluate(tree[2], names), evaluate(tree[3], names)
    if operator == "in":
        if not isinstance(right, list):
            raise EvaluationError("in needs a list")
        return any(_kind(left) == _kind(item) and left == item for item in right)
    kinds = {_kind(left), _kind(right)}
    if operator in ("==", "!="):
        equal = len(kinds) == 1 and left == right
        return equal if operator == "==" else not equal
    if kinds == {"string"} and operator == "+":
        return left + right
    if operator in ("<", "<=", ">", ">="):
        if len(kinds) != 1 or kinds & {"null", "other"}:
            raise EvaluationError(f"{operator} does not apply")
        return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])
    if kinds != {"number"}:
        raise EvaluationError(f"{operator} does not apply")
    return _arithmetic(operator, float(left), float(right))


def _arithmetic(operator: str, left: float, right: float) -> float:
    if operator in ("/", "%") and right == 0:
        raise DivisionByZero("division by zero")
    if operator == "+":
        value = left + right
    elif operator == "-":
        value = left - right
    elif operator == "*":
        value = left * right
    elif operator == "/":
        value = left / right
    else:
        value = math.fmod(left, right)
    if not math.isfinite(value):
        raise EvaluationError("not a finite number")
    return value


_EVALUATORS: dict[str, Any] = {
    "literal": lambda tree, names: tree[1],
    "name": _name,
    "select": _select,
    "has": _has,
    "or": _junction,
    "and": _junction,
    "not": _negation,
    "minus": _minus,
    "choice": _choice,
    "list": lambda tree, names: [evaluate(part, names) for part in tree[1]],
    "call": _call,
    "binary": _binary,
}
