"""Expressions at random, typed, with events to judge them by, and the comparison of an engine's value with the library's.

    seed -> expression (plain CEL: literals as doubles) -> compiled -> value, null or error ──┐
                                     │                     canonical -> library ──────────────┤ all equal
                                     └── as it is -> library ─────────────────────────────────┘

The third way is left out where our language says more than CEL over flat variables does: has(), and fields below null.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from milepost.schemas.contracts import compile_contract, paths_of
from milepost.schemas.errors import RuleError
from milepost.topology.by_library import plain
from milepost.topology.expressions import (
    EVENT_FIELDS,
    Expression,
    ExpressionFault,
    compile_expression,
    library_environment,
    library_values,
)

LEAF: Final = {"type": "record", "name": "Leaf", "fields": [{"name": "depth", "type": ["null", "double"]}]}
INNER: Final = {
    "type": "record",
    "name": "Inner",
    "fields": [{"name": "depth", "type": "double"}, {"name": "leaf", "type": ["null", LEAF]}],
}
ITEM: Final = {
    "type": "record",
    "name": "Item",
    "fields": [
        {"name": "price", "type": "double"},
        {"name": "count", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "leaf", "type": ["null", "Leaf"]},
    ],
}
FIELDS: Final[dict[str, Any]] = {
    "n": "double",
    "nn": ["null", "double"],
    "w": "long",
    "nw": ["null", "long"],
    "s": "string",
    "ns": ["null", "string"],
    "b": "boolean",
    "nb": ["null", "boolean"],
    "at": "string",
    "inner": ["null", INNER],
    "tags": {"type": "array", "items": "string"},
    "marks": {"type": "array", "items": "double"},
    "counts": {"type": "array", "items": "long"},
    "more": ["null", {"type": "array", "items": "long"}],
    "holes": ["null", {"type": "array", "items": ["null", "double"]}],
    "items": {"type": "array", "items": ITEM},
    "free": {"type": "map", "values": "double"},
    "words": ["null", {"type": "map", "values": "string"}],
    "mixed": ["null", "string", "double", "boolean"],
}
SCHEMA: Final = {
    "type": "record",
    "name": "All",
    "fields": [{"name": name, "type": kind} for name, kind in FIELDS.items()],
}
CONTRACT: Final = compile_contract("All", json.dumps(SCHEMA).encode())
TYPES: Final = paths_of(CONTRACT.type)
ALL_TYPES: Final = {**EVENT_FIELDS, **TYPES}
EVENT: Final = {"type": "t", "time": "2013-03-10T06:30:00.250Z", "source": "a", "org": "o"}

ERROR: Final = "an error"
NOT_FINITE: Final = "a number that is not finite"

_NUMBERS: Final = ("0.0", "1.0", "-1.0", "2.5", "3.0", "-0.0", "7.0", "1e300", "0.1", "(0.0 / 0.0)")
_TEXTS: Final = (
    "''",
    "'a'",
    '"ab"',
    "'é\\n😀'",
    "'12'",
    "'-7.5'",
    "'true'",
    "'b.c'",
    "'a b'",
    "'1e3'",
    "'1_0'",
    "'\\\\d\"'",
)
_WHOLES: Final = ("0", "1", "2", "3", "7", "-2", "int(4e18)")
_PATTERNS: Final = (
    "'^a'", "'b$'", "'^[a-c]+$'", "'a.c'", "'\\\\d+'", "'^(a|ab)$'", "'é'", "'^.$'", "'[^a]'", "'\\\\s'", "'(?i)A'",
    "'(a|b)*c'", "'^-?[0-9]{1,2}$'", "'\\\\w{2}'", "'.*'",
)  # fmt: skip
_TIMES: Final = (
    "timestamp('2013-01-01T00:00:00Z')", "timestamp('2012-02-29T23:59:59.999+01:00')", "timestamp(event.time)",
    "timestamp('1969-12-31T23:59:58.5Z')", "timestamp(data.at)", "timestamp(int(data.n))",
)  # fmt: skip
_SPANS: Final = ("duration('90s')", "duration('1h30m')", "duration('-1.5s')", "duration('36h')", "duration(data.s)")
_PARTS: Final = (
    "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes",
    "getSeconds", "getMilliseconds",
)  # fmt: skip
_ZONES: Final = ("", "", "'UTC'", "'+02:00'", "'-05:30'")


@dataclass(slots=True)
class Sample:
    """A writer of expressions.  scope: loop variables by kind, as the loops around have them."""

    random: Random
    scope: dict[str, list[str]] = field(default_factory=lambda: {"number": [], "text": [], "item": [], "dyn": []})

    def pick(self, *ways: Callable[[], str]) -> str:
        return self.random.choice(ways)()

    def one(self, of: tuple[str, ...]) -> str:
        return self.random.choice(of)

    def number(self, d: int) -> str:
        if d <= 0:
            names = ("data.n", "data.nn", "data.w", "data.nw", "data.inner.depth", "data.free.k", "data.mixed")
            items = tuple(f"{one}.{name}" for one in self.scope["item"] for name in ("price", "count", "leaf.depth"))
            return self.one((*_NUMBERS, *names, *(9 * self.scope["number"]), *items))
        return self.pick(
            lambda: f"({self.number(d - 1)} {self.one(('+', '-', '*', '/'))} {self.number(d - 1)})",
            lambda: f"({self.number(d - 1)} {self.one(('+', '-', '*', '/'))} {self.number(d - 1)})",
            lambda: f"-({self.number(d - 1)})",
            lambda: f"({self.truth(d - 1)} ? {self.number(d - 1)} : {self.number(d - 1)})",
            lambda: f"double({self.whole(d - 1)})",
            lambda: f"double({self.text(d - 1)})",
            lambda: f"{self.numbers(d - 1)}[{self.whole(d - 2, inside=True)}]",
            lambda: f"{self.names(d - 1)}[{self.text(d - 1)}]",
            lambda: self.number(0),
        )

    def whole(self, d: int, *, inside: bool = False) -> str:
        """A number of 64 bits.  inside: of [ ] or %, where it may be computed; elsewhere it would be a double's sum."""
        if d <= 0:
            return self.one((*_WHOLES, "int(data.w)", "size(data.tags)", "int(data.n)"))
        sums = (
            lambda: f"({self.whole(d - 1, inside=True)} {self.one(tuple('%/+-*'))} {self.whole(d - 1, inside=True)})",
        )
        return self.pick(
            *(sums if inside else ()),
            lambda: f"int({self.number(d - 1)})",
            lambda: f"int({self.text(d - 1)})",
            lambda: f"size({self.text(d - 1)})",
            lambda: f"size({self.numbers(d - 1)})",
            lambda: f"{self.texts(d - 1)}.size()",
            lambda: f"({self.whole(d - 1, inside=True)} % {self.whole(d - 1, inside=True)})",
            lambda: f"{self.time(d - 1)}.{self.one(_PARTS)}({self.one(_ZONES)})",
            lambda: f"{self.span(d - 1)}.{self.one(_PARTS[6:])}()",
            lambda: f"int({self.time(d - 1)})",
        )

    def text(self, d: int) -> str:
        if d <= 0:
            names = ("data.s", "data.ns", "event.type", "data.at", "data.words.k", "data.mixed", "data.s")
            items = tuple(f"{one}.{name}" for one in self.scope["item"] for name in ("name", "note"))
            return self.one((*_TEXTS, *names, *(9 * self.scope["text"]), *items))
        return self.pick(
            lambda: f"({self.text(d - 1)} + {self.text(d - 1)})",
            lambda: f"({self.truth(d - 1)} ? {self.text(d - 1)} : {self.text(d - 1)})",
            lambda: f"string({re.sub(r'data.n?w(?![a-z])', 'data.n', self.number(d - 1))})",
            lambda: f"string({self.whole(d - 1)})",
            lambda: f"string({self.truth(d - 1)})",
            lambda: f"{self.texts(d - 1)}[{self.whole(d - 2, inside=True)}]",
            lambda: self.text(0),
        )

    def truth(self, d: int) -> str:
        if d <= 0:
            return self.one(("true", "false", "data.b", "data.nb", "data.mixed"))
        compare = self.one(("==", "!=", "<", "<=", ">", ">="))
        return self.pick(
            lambda: f"({self.number(d - 1)} {compare} {self.number(d - 1)})",
            lambda: f"({self.text(d - 1)} {compare} {self.text(d - 1)})",
            lambda: f"({self.truth(d - 1)} {compare} {self.truth(d - 1)})",
            lambda: f"({self.time(d - 1)} {compare} {self.time(d - 1)})",
            lambda: f"({self.span(d - 1)} {compare} {self.span(d - 1)})",
            lambda: f"({self.truth(d - 1)} {self.one(('&&', '||'))} {self.truth(d - 1)})",
            lambda: f"({self.truth(d - 1)} {self.one(('&&', '||'))} {self.truth(d - 1)})",
            lambda: f"({self.truth(d - 1)} {self.one(('&&', '||'))} {self.truth(d - 1)})",
            lambda: f"!({self.truth(d - 1)})",
            lambda: f"({self.truth(d - 1)} ? {self.truth(d - 1)} : {self.truth(d - 1)})",
            lambda: f"({self.text(d - 1)} in [{self.text(d - 1)}, {self.text(0)}])",
            lambda: f"({self.number(d - 1)} in [{self.number(d - 1)}, {self.number(0)}])",
            lambda: f"({self.number(d - 1)} in {self.numbers(d - 1)})",
            lambda: f"({self.text(d - 1)} in {self.texts(d - 1)})",
            lambda: f"({self.text(d - 1)} in {self.names(d - 1)})",
            lambda: f"({self.numbers(d - 1)} {self.one(('==', '!='))} {self.numbers(d - 1)})",
            lambda: f"{self.text(d - 1)}.{self.one(('startsWith', 'endsWith', 'contains'))}({self.text(d - 1)})",
            lambda: f"{self.text(d - 1)}.matches({self.one(_PATTERNS)})",
            lambda: f"bool({self.text(d - 1)})",
            lambda: f"has(data.{self.one(('nn', 'ns', 'inner.depth', 'free.k', 'words.k', 'n', 'inner.leaf.depth'))})",
            lambda: f"(data.{self.one(('nn', 'nw', 'ns', 'nb', 'inner', 'holes'))} {self.one(('==', '!='))} null)",
            lambda: self.loop(d),
            lambda: self.loop(d),
            lambda: self.loop(d),
            lambda: self.itself(d),
        )

    def loop(self, d: int) -> str:
        macro = self.one(("all", "exists", "exists_one"))
        kind, over = self.random.choice(
            (
                ("number", self.numbers),
                ("text", self.texts),
                ("text", self.names),
                ("item", lambda _: "data.items"),
            )
        )
        items = over(d - 1)
        compare = self.one(("==", "<", ">="))

        def body(name: str) -> str:
            if kind in ("number", "text") and self.random.random() < 0.5:
                return f"{name} {compare} {self.number(d - 1) if kind == 'number' else self.text(d - 1)}"
            return self.truth(d - 1)

        return self.inside(kind, lambda name: f"{items}.{macro}({name}, {body(name)})")

    def itself(self, d: int) -> str:
        """Whether a number is equal to itself, which one is not."""
        items = f"[{self.number(d - 1)}]"
        return self.inside("number", lambda name: f"{items}.exists({name}, {name} in [{name}, {self.number(0)}])")

    def inside(self, kind: str, write: Callable[[str], str]) -> str:
        name = f"v{sum(map(len, self.scope.values()))}"
        self.scope[kind].append(name)
        text = write(name)
        self.scope[kind].remove(name)
        return text

    def numbers(self, d: int) -> str:
        if d <= 0:
            return self.one(("data.marks", "data.counts", "data.holes", "data.more", "[1.0, 2.5]", "[data.n, data.nn]"))
        return self.pick(
            lambda: f"({self.numbers(d - 1)} + {self.numbers(d - 1)})",
            lambda: f"[{self.number(d - 1)}, {self.number(d - 1)}]",
            lambda: self._map("number", self.numbers, lambda: self.number(d - 1), d),
            lambda: self._map("text", self.texts, lambda: self.number(d - 1), d),
            lambda: self.inside("item", lambda name: f"data.items.map({name}, {self.number(d - 1)})"),
            lambda: self._filter("number", self.numbers, d),
            lambda: self.numbers(0),
        )

    def texts(self, d: int) -> str:
        if d <= 0:
            return self.one(("data.tags", "['a', 'b']", "[data.s, data.ns]", "data.tags"))
        return self.pick(
            lambda: f"({self.texts(d - 1)} + {self.texts(d - 1)})",
            lambda: f"[{self.text(d - 1)}]",
            lambda: self._map("number", self.numbers, lambda: self.text(d - 1), d),
            lambda: self._filter("text", self.texts, d),
            lambda: self.texts(0),
        )

    def names(self, d: int) -> str:
        """An object with numbers."""
        return self.one(("data.free", "{'a': 1.0, 'ab': 2.0}", "data.free", f"{{'a': {self.number(d - 1)}}}"))

    def time(self, d: int) -> str:
        if d <= 0:
            return self.one(_TIMES)
        return self.pick(
            lambda: f"({self.time(d - 1)} {self.one(('+', '-'))} {self.span(d - 1)})", lambda: self.time(0)
        )

    def span(self, d: int) -> str:
        if d <= 0:
            return self.one(_SPANS)
        return self.pick(
            lambda: f"({self.span(d - 1)} {self.one(('+', '-'))} {self.span(d - 1)})",
            lambda: f"({self.time(d - 1)} - {self.time(d - 1)})",
            lambda: self.span(0),
        )

    def _map(self, kind: str, over: Callable[[int], str], to: Callable[[], str], d: int) -> str:
        items = over(d - 1)
        test = f"{self.truth(d - 2)}, " if self.random.random() < 0.3 else ""
        return self.inside(kind, lambda name: f"{items}.map({name}, {test}{to()})")

    def _filter(self, kind: str, over: Callable[[int], str], d: int) -> str:
        items = over(d - 1)
        return self.inside(kind, lambda name: f"{items}.filter({name}, {self.truth(d - 1)})")


def texts(seed: int, count: int) -> Iterator[str]:
    """So many expressions: the same for the same seed."""
    random = Random(seed)
    for _ in range(count):
        sample = Sample(random)
        write = random.choice((sample.truth, sample.number, sample.text))
        yield write(random.choice((1, 2, 2, 3, 3, 4)))


def rows(random: Random, count: int) -> list[dict[str, Any]]:
    """Events' data, as the contract's check returns it."""

    def item() -> dict[str, Any]:
        return {
            "price": random.choice([0.0, 1.0, 2.5, -1.0]),
            "count": random.choice([0, 1, 7, 2**53 + 1]),
            "name": random.choice(["", "a", "ab"]),
            "note": random.choice([None, "a"]),
            "leaf": random.choice([None, {"depth": 1.0}, {"depth": None}]),
        }

    def many(of: list[Any], most: int = 3) -> list[Any]:
        return [random.choice(of) for _ in range(random.randrange(most + 1))]

    def one() -> dict[str, Any]:
        leaf = random.choice([None, {"depth": None}, {"depth": 2.0}])
        return {
            "n": random.choice([0.0, 1.0, -1.0, 2.5, -2.5, 1e300, 9e18, -0.0, 7.0]),
            "nn": random.choice([None, 0.0, 1.0, 2.5]),
            "w": random.choice([0, 1, 7, -3, 86_400_000, 2**53 + 1, 1234567]),
            "nw": random.choice([None, 0, 3]),
            "s": random.choice(["", "a", "ab", "é\n😀", "12", "-7.5", "2h", "true", " 3", "b.c", "a b", "90s", "1e3", "1_0", "infinity"]),
            "ns": random.choice([None, "", "a", "b"]),
            "b": random.random() < 0.5,
            "nb": random.choice([None, True, False]),
            "at": random.choice(["2013-03-10T06:30:00Z", "2013-03-10", "1999-12-31T23:59:60Z", "2000-02-29T12:00:00-05:00"]),
            "inner": random.choice([None, {"depth": 1.0, "leaf": leaf}]),
            "tags": many(["", "a", "ab", "b.c"]),
            "marks": many([0.0, 1.0, 2.5, -0.0]),
            "counts": many([0, 1, 2**53 + 1]),
            "more": random.choice([None, many([0, 1, 2**53 + 1])]),
            "holes": random.choice([None, many([None, 1.0, 2.5])]),
            "items": [item() for _ in range(random.randrange(3))],
            "free": random.choice([{}, {"k": 1.0}, {"k": 0.0, "a": 2.5}]),
            "words": random.choice([None, {}, {"k": "a"}]),
            "mixed": random.choice([None, "a", 1.0, True]),
        }  # fmt: skip

    return [CONTRACT.check(one()) for _ in range(count)]


@dataclass(slots=True)
class Tally:
    """What a comparison met.  wrong: text, canonical, data and the answers that differ."""

    met: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


CORNERS: Final = (
    "data.holes.exists(x, x > 1.0)",
    "data.holes.all(x, x > 1.0)",
    "data.items.exists_one(x, x.leaf.depth > 0.5)",
    "data.nn > 1.0 && data.nw > 1.0",
    "data.nn > 1.0 || data.nw > 1.0",
    "!data.nb",
    "data.items.all(x, x.leaf.depth > 0.5)",
    "data.holes.all(x, x < 2.0)",
    "data.holes.all(x, x < 0.0)",
    "data.n / data.nn",
    "1.0 / (data.n * 0.0)",
    "double((int(data.n) - 6) / 4 % 5)",
    "double((int(data.w) - 6) % 4)",
    "double(int(4e18) * int(data.n) * 3 % 7)",
    "double(int(data.n))",
    "double(int(data.s))",
    "double(data.s)",
    "bool(data.s)",
    "data.marks[int(data.n) % 3]",
    "[data.n / 0.0 - data.n / 0.0].exists(x, x in [x])",
    "(0.0 / data.n) in data.holes",
    "9007199254740992.0 in data.counts",
    "1.0 in data.more",
    "data.more == data.counts",
    "data.tags.exists(t, data.holes != data.more)",
    "data.tags.exists(t, 1.0 in data.more)",
    "data.tags.all(t, data.ns.contains(t))",
    "data.counts == [9007199254740992.0]",
    "data.ns in data.free",
    "string(data.n)",
    "string(data.nb)",
    "string(data.ns)",
    "data.inner.leaf.depth",
    "data.items.exists(x, x.leaf.depth == null)",
    "double(duration('-1.5s').getMilliseconds())",
    "double((duration(data.s) - duration('100m')).getMinutes())",
    "double(timestamp(data.at).getHours('-05:30'))",
    "double(timestamp(int(data.w)).getDayOfYear())",
    "double(timestamp(event.time).getMonth())",
    "data.s.matches('b$')",
    "data.s.matches('^\\\\d+$')",
    "data.s.matches('^.$')",
    "data.mixed == data.n",
)
"""Where Python and CEL part: each on many events, before what is made at random."""


def compare(seed: int, count: int, *, events: int = 3) -> Tally:
    """Judge so many expressions on some events each, in every way there is."""
    return judge(texts(seed, count), Random(seed), events=events)


def judge(expressions: Iterable[str], random: Random, *, events: int) -> Tally:
    tally = Tally()
    for text in expressions:
        try:
            expression = compile_expression(text, "rule", data=TYPES)
        except ExpressionFault as fault:
            tally.met[f"refused: {fault.reason}"] += 1
            if fault.reason not in ("bound", "null"):
                tally.wrong.append(f"{text}\n  refused: {fault.message}")
            continue
        _judge(text, expression, rows(random, events), tally)
    return tally


def _judge(text: str, expression: Expression, data: list[dict[str, Any]], tally: Tally) -> None:
    tally.met["compiled" if expression.compiled else "by the library"] += 1
    canonical = library(expression.canonical, expression.paths)
    plain = "has(" not in text and "leaf" not in text and "dyn(" not in expression.canonical
    raw = library(text, expression.paths) if plain else canonical
    for row in data:
        ours = engine(expression, row)
        for how, answer in (("canonical", canonical(row)), ("plain", raw(row))):
            if not same(ours, answer):
                answers = f"ours {ours!r}, the library's ({how}) {answer!r}"
                tally.wrong.append(f"{text}\n  canonical {expression.canonical}\n  {answers}\n  {row}")
        tally.met["error" if ours is ERROR else "null" if ours is None else type(ours).__name__] += 1


def engine(expression: Expression, data: dict[str, Any]) -> Any:
    """What the engine makes of an event: a value, None or ERROR."""
    try:
        return expression.evaluate(data, EVENT)
    except RuleError:
        return ERROR


def library(text: str, paths: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
    """What the library makes of it.  A number that is not finite is an error of ours alone."""
    checked = library_environment(paths, ALL_TYPES, checked=True).compile(text)
    program = library_environment(paths, ALL_TYPES, checked=False).deserialize(checked.serialize())

    def value(data: dict[str, Any]) -> Any:
        result = program.eval(data=library_values(paths, data, EVENT))
        found = ERROR if result.type().name() == "ERROR" else plain(result)
        return ERROR if isinstance(found, float) and not math.isfinite(found) else found

    return value


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one != other:
        return False
    return not isinstance(one, float) or math.copysign(1.0, one) == math.copysign(1.0, other)


_ATOMS: Final = (
    "a", "b", "-", "_", " ", "é", "1", ".", r"\d", r"\w", r"\s", r"\D", r"\.", r"\-", r"\\", r"\/", "[a-c]", "[^a]", "[a-]",
    "[-a]", "[a-c1-3_]", r"[\d.]", r"[^\s]", "[é]", "[]a]", "[a", "x]", "{", "}", "{,2}", "^", "$", r"\b", r"\z", "(?i)", "#",
    "&", "[a&&b]", "~", "[a-c-e]", "[c-a]", "[:alpha:]", "[[:alpha:]]", r"\n", r"\x41", r"\pL", r"\Q", "/", "%", "٣", r"\K",
)  # fmt: skip
_REPEATS: Final = ("", "", "", "", "*", "+", "?", "{2}", "{0,1}", "{1,}", "{2,1}", "*?", "**", "{0}", "{00}")
_LETTERS: Final = "aabbc11-_. é\n\v\t٣xAKſ\\/{,2}[]&#~$^\r"


def patterns(random: Random, count: int) -> Iterator[str]:
    """Regular expressions, and some that are none."""
    for _ in range(count):
        parts = [
            random.choice(_ATOMS) + random.choice(_REPEATS) + random.choice(("", "", "", "", "|", "(", ")"))
            for _ in range(random.randrange(1, 5))
        ]
        text = random.choice(("", "", "^")) + "".join(parts)
        text += ")" * (text.count("(") - text.count(")"))
        yield text + random.choice(("", "", "$"))


def letters(random: Random, count: int) -> list[str]:
    """Short texts, of what patterns tell apart."""
    return ["".join(random.choice(_LETTERS) for _ in range(random.randrange(7))) for _ in range(count)]


def spellings(random: Random, count: int) -> Iterator[str]:
    """Numbers, times and durations as people and programs write them, right and almost right."""

    def digits(most: int) -> str:
        return "".join(random.choice("0123456789") for _ in range(random.randrange(most + 1)))

    def two(limit: int) -> str:
        return f"{random.randrange(limit):02}"

    ways: tuple[Callable[[], str], ...] = (
        lambda: random.choice(("", "-", "+", " ")) + digits(20),
        lambda: random.choice(("", "-", "+")) + digits(16) + "." + digits(17),
        lambda: digits(3) + random.choice(("e", "E")) + random.choice(("", "-", "+")) + digits(3),
        lambda: random.choice(("true", "True", "TRUE", "t", "1", "false", "no", "nan", "-inf", "0x1p3", "1_0", "\u0661")),
        lambda: (
            f"{random.choice(('1969', '1970', '2000', '2013', '9999', '0001', '1500', '2012'))}-{two(14)}-{two(33)}"
            f"{random.choice('TTTTTt ')}{two(25)}:{two(61)}:{two(62)}{random.choice(('', '', '.5', '.123456', '.1234567', '.'))}"
            f"{random.choice(('Z', 'Z', 'z', '', '+00:00', '-05:30', '+13:59', '+24:00', '-0500', '+01'))}"
        ),
        lambda: "".join(
            random.choice(("", "-")) + digits(4) + random.choice(("", ".5")) + random.choice(("h", "m", "s", "ms", "us", "d", ""))
            for _ in range(random.randrange(1, 4))
        ),
        lambda: f"{random.randrange(100)}h{random.randrange(100)}m{random.randrange(100)}s",
    )  # fmt: skip
    for _ in range(count):
        yield random.choice(ways)()
