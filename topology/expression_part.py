"""Expression part: a node of an expression, translated; and how an expression is refused.

A `Part` has two spellings of one meaning: Python source over `d` (data, or a formula's operands) and `e` (event), and
canonical CEL, which the library evaluates where the Python is not proven to be equal.  So there is one language,
whichever of the two evaluates it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from milepost.schemas.field_types import FieldType, Kind

CANONICAL_MAX: Final = 16 * 1024
"""Characters of an expression's canonical text, at most."""

Refusal = Literal[
    "syntax",  # not CEL
    "bound",  # too long, too deep, too many nodes, loops or a pattern too large
    "name",  # a field, metric or variable that is not known
    "function",  # a function that is not known
    "kind",  # kinds that do not fit, or a value that a rule cannot have
    "null",  # null compared with what is never null
    "literal",  # bytes, unsigned numbers, times that are none
    "dynamic",  # types as values, dyn()
    "message",  # protobuf messages
    "keys",  # the keys of an object that are not text literals, or stand twice
    "several_kinds",  # a list or object of several kinds
    "order",  # a list made of an object's keys, whose order is nobody's
    "zone",  # a zone by name: its rules are data of the machine
    "pattern",  # a regular expression that is not RE2, or that comes from the data
    "formula",  # what has no place in a formula
]
"""Why an expression is refused: a closed list."""

REFUSALS: Final[frozenset[str]] = frozenset(get_args(Refusal))

PartKind = Kind | Literal["timestamp", "duration"]

Trait = Literal["unsure", "loop", "joins", "joins_in_loop", "searches_in_loop"]
"""unsure: the Python can raise `Unsure`;  joins: + on texts or lists (whose size nobody knows before);  searches: goes
through a text or a list for each element of a loop."""

SAID: Final = {
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "list": "a list",
    "record": "an object",
    "map": "an object",
    "mixed": "one of several kinds",
    "timestamp": "a time",
    "duration": "a duration",
}


class Fault(Exception):
    """An expression that cannot hold.  offset: characters from its start; guess: the name probably meant; fix."""

    def __init__(self, message: str, offset: int, fix: str = "", reason: Refusal = "kind", guess: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.fix, self.guess = message, offset, fix, guess
        self.reason: Refusal = reason


@dataclass(frozen=True, slots=True)
class Part:
    """A translated node.

    code, text: Python source, canonical CEL
    kind:       of its value
    nullable:   the value can be None
    fails:      evaluating can raise one of FAILURES
    computed:   a number made by arithmetic (or a list of such), which may be infinite or not a number
    name:       how to speak of it in a message
    of:         of a list's or object's values; of a record, its own type
    library:    why the library evaluates the expression, or ""; the code is void then
    traits:     what bounds depend on
    whole:      a double made of a whole number, as int() does
    """

    code: str
    text: str
    kind: PartKind
    nullable: bool = False
    fails: bool = False
    computed: bool = False
    name: str = ""
    of: FieldType | None = None
    library: str = ""
    traits: frozenset[Trait] = frozenset()
    whole: bool = False

    @property
    def said(self) -> str:
        return SAID[self.kind]


def made(
    kind: PartKind,
    code: str,
    text: str,
    *inner: Part,
    fails: bool | None = None,
    nullable: bool = False,
    computed: bool = False,
    of: FieldType | None = None,
    library: str = "",
    traits: frozenset[Trait] | set[Trait] = frozenset(),
) -> Part:
    """A part made of others: it fails, is the library's and has the traits where any of them does.

    fails: None when any null inside is an error
    """
    if len(text) > CANONICAL_MAX:
        raise Fault(f"an expression has at most {CANONICAL_MAX} characters once it is spelled out", 0, reason="bound")
    return Part(
        code,
        text,
        kind,
        nullable=nullable,
        fails=any(one.fails or one.nullable for one in inner) if fails is None else fails,
        computed=computed,
        of=of,
        library=library or next((one.library for one in inner if one.library), ""),
        traits=frozenset(traits).union(*(one.traits for one in inner)),
    )


def fails(*inner: Part) -> bool:
    return any(one.fails for one in inner)


def element(of: FieldType | None) -> FieldType:
    """The type of a list's or object's values; what no schema says is of several kinds."""
    return of if of is not None else FieldType(kind="mixed", nullable=True)
