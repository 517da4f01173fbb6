"""Rule runs: a case's events through the whole line in process, and what came held against what is expected.

    case ─▶ Driver (one partition, no broker) ─▶ signals, dead letters, answers ─▶ differences

The log's clock is the events' own: an event arrives when it happened, or with the event before it, whichever is later,
unless it says when it became known.  So a case gives the same result at any time and on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from milepost.schemas.errors import BundleError, Finding
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.topology import bases
from milepost.topology.catalog import Catalog, load_bundle
from milepost.topology.driver import Driver
from milepost.topology.expressions import closest
from milepost.topology.questions import Question, Questions
from milepost.topology.refusals import QuestionError
from milepost.topology.rule_cases import (
    Case,
    DeadLetterExpected,
    GivenText,
    Kind,
    MetricExpected,
    MilestoneExpected,
    SignalExpected,
)
from milepost.topology.steps import run

SECRET: Final = b"the secret of tests that are data"
ORG: Final = "acme"
START: Final = "2025-01-01T00:00:00Z"
CLOSE: Final = 1e-9
"""Numbers are equal within this share: formulas are doubles."""

Evaluate = Callable[[Driver, str, MilestoneExpected], str]
"""What gives the state of a milestone: (driver, organisation, what is asked)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is not as expected.  `expected` or `came` is "" where there was none."""

    what: Kind
    line: int
    column: int
    expected: str
    came: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a case."""

    file: str
    line: int
    name: str
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        return not self.differences


def run_cases(
    files: Mapping[str, bytes], cases: Sequence[Case], milestones: Evaluate | None = None
) -> Iterator[Result]:
    """Run the cases over a bundle, one after another.

    milestones: evaluates them; None: cases that expect any are refused.
    Raises BundleError: the bundle does not validate, or a case names what there is not.
    """
    catalog = load_bundle(files)
    runs = [_Run(catalog, case, milestones) for case in cases]
    findings = [finding for one in runs for finding in one.findings()]
    if findings:
        raise BundleError(findings)
    for one in runs:
        yield one.result(files)


@dataclass(frozen=True, slots=True)
class _Signal:
    event: str
    signal: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _DeadLetter:
    event: str
    rule: str
    reason: str
    detail: str


class _Run:
    def __init__(self, catalog: Catalog, case: Case, milestones: Evaluate | None) -> None:
        self.catalog, self.case, self.milestones = catalog, case, milestones
        self.expect = case.text.expect
        bridges = (plan.org for plan in catalog.plans.values() if plan.org)
        self.org = case.defaults.org or next(bridges, ORG)

    # -- before the run: names and times that mean nothing

    def findings(self) -> Iterator[Finding]:
        for i, signal in enumerate(self.expect.signals or ()):
            if signal.signal not in self.catalog.rules:
                guess = closest(signal.signal, self.catalog.rules)
                below = ("expect", "signals", i, "signal")
                yield self.case.finding(below, f"no signal is named {signal.signal!r}", guess=guess)
        if self.expect.milestones and self.milestones is None:
            message = "milestones cannot be tested yet: no stage of the line evaluates them"
            yield self.case.finding(("expect", "milestones"), message, fix="leave milestones out")
        ids = {self._id(i, given) for i, given in enumerate(self.case.text.given)}
        named = [("signals", [one.event for one in self.expect.signals or ()])]
        named += [("dead_letters", [one.event for one in self.expect.dead_letters])]
        for kind, events in named:
            for i, event in enumerate(events):
                if event is not None and event not in ids:
                    message = f"no given event has the id {event!r}"
                    yield self.case.finding(("expect", kind, i, "event"), message, guess=closest(event, ids))
        yield from self._times()
        for i, given in enumerate(self.case.text.given):
            yield from self._nameless(i, given)

    def _times(self) -> Iterator[Finding]:
        clock_ms = None
        for i, given in enumerate(self.case.text.given):
            known_ms, fault = _instant(given.known)
            if fault:
                yield self.case.finding(("given", i, "known"), fault)
            time_ms, _ = _instant(given.time)  # a time that is none is the event's fault, and may be what is tested
            if known_ms is not None and clock_ms is not None and known_ms < clock_ms:
                message = f"the event before it was known at {bases.written(clock_ms)}: arrivals are in order"
                yield self.case.finding(("given", i, "known"), message, fix="put the event further up")
            clock_ms = max(clock_ms or 0, known_ms if known_ms is not None else time_ms or 0)
        for below, text in (
            (("now",), self.case.text.now),
            *((("expect", "metrics", i, "at"), one.at) for i, one in enumerate(self.expect.metrics)),
        ):
            _, fault = _instant(text)
            if fault:
                yield self.case.finding(below, fault)

    def _nameless(self, i: int, given: GivenText) -> Iterator[Finding]:
        if (given.type or self.case.defaults.type) is None:
            yield self.case.finding(("given", i), "the event has no type", fix="type: …, here or in defaults")
        elif self._source(given) is None:
            message = (
                f"which source is it from?  Not exactly one has the type {given.type or self.case.defaults.type!r}"
            )
            yield self.case.finding(("given", i), message, fix="source: …, here or in defaults")
        try:
            orjson.dumps({**self.case.defaults.data, **given.data})
        except TypeError as error:
            yield self.case.finding(("given", i, "data"), f"data can be no JSON: {error}")

    # -- the run

    def result(self, files: Mapping[str, bytes]) -> Result:
        driver = Driver(SECRET, partitions=1)
        events = list(self._events())
        first_ms = events[0][1] if events else bases.instant(START)
        driver.apply(self.org, files, first_ms)
        places: dict[int, str] = {}
        for event, known_ms in events:
            _, offset = driver.produce(event, known_ms)
            places[offset] = event["id"]
        last_ms = events[-1][1] if events else first_ms
        # A millisecond behind the last arrival: a window ends before now, and what happens now is not in it yet.
        now_ms = bases.instant(self.case.text.now) if self.case.text.now is not None else last_ms + 1
        driver.tick(max(now_ms, last_ms))
        driver.run()
        differences = [
            *self._signals(_signals(driver)),
            *self._dead_letters(_dead_letters(driver, places)),
            *self._metrics(driver, now_ms),
            *self._states(driver),
        ]
        case = self.case
        return Result(file=case.file, line=case.line, name=case.name, differences=tuple(differences))

    def _events(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The events as a source would send them, and when they arrive."""
        clock_ms, time = 0, START
        for i, given in enumerate(self.case.text.given):
            time = given.time or time
            known_ms, _ = _instant(given.known)
            time_ms, _ = _instant(time)
            clock_ms = max(clock_ms, known_ms if known_ms is not None else time_ms or clock_ms)
            event: dict[str, Any] = {
                "org": self.org,
                "source": self._source(given),
                "id": self._id(i, given),
                "type": given.type or self.case.defaults.type,
                "time": time,
                "data": {**self.case.defaults.data, **given.data},
            }
            if given.revision or given.void:
                event |= {"revision": given.revision, "void": given.void}
            yield event, clock_ms

    def _id(self, i: int, given: GivenText) -> str:
        return given.id or str(i + 1)

    def _source(self, given: GivenText) -> str | None:
        named = given.source or self.case.defaults.source
        if named is not None:
            return named
        event_type = given.type or self.case.defaults.type
        able = [one.name for one in self.catalog.sources.values() if event_type in one.types]
        return able[0] if len(able) == 1 else None

    # -- what came against what is expected

    def _signals(self, came: list[_Signal]) -> Iterator[Difference]:
        if self.expect.signals is None:
            return

        def fits(one: SignalExpected, signal: _Signal) -> bool:
            right = all(
                name in signal.fields and _same(value, signal.fields[name]) for name, value in one.fields.items()
            )
            return alike(one, signal) and right

        def alike(one: SignalExpected, signal: _Signal) -> bool:
            return one.signal == signal.signal and one.event in (None, signal.event)

        def told(one: SignalExpected) -> str:
            return _told_signal(one.signal, one.event, one.fields)

        def seen(one: _Signal) -> str:
            return _told_signal(one.signal, one.event, one.fields)

        yield from self._matched("signal", "signals", self.expect.signals, came, fits, alike, told, seen)

    def _dead_letters(self, came: list[_DeadLetter]) -> Iterator[Difference]:
        def fits(one: DeadLetterExpected, letter: _DeadLetter) -> bool:
            return alike(one, letter) and one.reason == letter.reason and (one.detail or "") in letter.detail

        def alike(one: DeadLetterExpected, letter: _DeadLetter) -> bool:
            return one.event in (None, letter.event) and one.rule in (None, letter.rule)

        def told(one: DeadLetterExpected) -> str:
            return _told_dead_letter(one.reason, one.event, one.rule, one.detail)

        def seen(one: _DeadLetter) -> str:
            return _told_dead_letter(one.reason, one.event, one.rule, one.detail)

        yield from self._matched("dead letter", "dead_letters", self.expect.dead_letters, came, fits, alike, told, seen)

    def _matched(
        self,
        what: Kind,
        key: str,
        expected: Sequence[Any],
        came: list[Any],
        fits: Callable[[Any, Any], bool],
        alike: Callable[[Any, Any], bool],
        told: Callable[[Any], str],
        seen: Callable[[Any], str],
    ) -> Iterator[Difference]:
        """Each expected one takes the first that fits; what is left over is paired with its like, or stands alone."""
        rest = list(came)
        missing = [(i, one) for i, one in enumerate(expected) if not _take(rest, one, fits)]
        for i, one in missing:
            near = _take(rest, one, alike)
            line, column = self.case.place("expect", key, i)
            yield Difference(
                what=what, line=line, column=column, expected=told(one), came=seen(near[0]) if near else ""
            )
        line, column = self.case.place("expect", key)
        for one in rest:
            yield Difference(what=what, line=line, column=column, expected="", came=seen(one))

    def _metrics(self, driver: Driver, now_ms: int) -> Iterator[Difference]:
        questions = Questions(driver.reader)
        for i, one in enumerate(self.expect.metrics):
            question = Question(
                metric=one.metric,
                now_ms=now_ms,
                org=self.org,
                company=one.company,
                at_ms=_instant(one.at)[0],
                basis=one.basis,
                window=one.window,
                tz=one.tz,
                dims=one.dims,
            )
            try:
                answer = run(questions.value(question))
                same = _same(one.value, answer["value"]) and one.reason == answer["reason"]
                came = _told_value(answer["value"], answer["reason"])
            except QuestionError as error:
                guess = f"; did you mean {error.guess}?" if error.guess else ""
                same, came = False, f"refused: {error.detail}{guess}"
            if not same:
                line, column = self.case.place("expect", "metrics", i)
                expected = f"{_told_question(one)} = {_told_value(one.value, one.reason)}"
                yield Difference(
                    what="metric", line=line, column=column, expected=expected, came=f"{_told_question(one)} = {came}"
                )

    def _states(self, driver: Driver) -> Iterator[Difference]:
        for i, one in enumerate(self.expect.milestones):
            assert self.milestones is not None, "refused before the run"
            state = self.milestones(driver, self.org, one)
            if state != one.state:
                line, column = self.case.place("expect", "milestones", i)
                expected, came = f"{one.milestone} is {one.state}", f"{one.milestone} is {state}"
                yield Difference(what="milestone", line=line, column=column, expected=expected, came=came)


def _signals(driver: Driver) -> list[_Signal]:
    """The signals in the log, in the order of their events."""
    header = wire("Signals").header
    values = (message.value for message in driver.topics["signals"][0])
    found = [wire("Signals").decode(value) for value in values if value and value[:HEADER_BYTES] == header]
    return [
        _Signal(one["id"], signal["rule"], orjson.loads(signal["fields"])) for one in found for signal in one["signals"]
    ]


def _dead_letters(driver: Driver, places: Mapping[int, str]) -> list[_DeadLetter]:
    letters = sorted(driver.dead_letters, key=lambda one: (one["offset"], one["stage"], one["rule"]))
    return [_DeadLetter(places.get(one["offset"], "?"), one["rule"], one["reason"], one["detail"]) for one in letters]


def _take(rest: list[Any], one: Any, fits: Callable[[Any, Any], bool]) -> list[Any]:
    """The first of the rest that fits, taken out of it, in a list; an empty list when none does."""
    for i, other in enumerate(rest):
        if fits(one, other):
            return [rest.pop(i)]
    return []


def _instant(text: str | None) -> tuple[int | None, str]:
    """(the time in ms, "") or (None, what is wrong with it)."""
    if text is None:
        return None, ""
    try:
        return bases.instant(text, "the time"), ""
    except QuestionError as error:
        return None, error.detail


def _same(expected: object, came: object) -> bool:
    if isinstance(expected, bool) or isinstance(came, bool):
        return expected is came
    if isinstance(expected, int | float) and isinstance(came, int | float):
        return math.isclose(expected, came, rel_tol=CLOSE, abs_tol=CLOSE)
    return expected == came


def _told_signal(signal: str, event: str | None, fields: Mapping[str, Any]) -> str:
    return f"{signal}{_of(event)}{_fields(fields.items())}"


def _told_dead_letter(reason: str, event: str | None, rule: str | None, detail: str | None) -> str:
    by = f", rule {rule}" if rule else ""
    return f"{reason}{_of(event)}{by}" + (f": {detail}" if detail else "")


def _told_question(one: MetricExpected) -> str:
    asked: list[tuple[str, object]] = [("company", one.company), ("at", one.at), ("basis", one.basis)]
    asked += [("window", one.window if one.window != "all" else None), ("tz", one.tz if one.tz != "UTC" else None)]
    asked += [(f"dim.{name}", value) for name, value in one.dims.items()]
    return f"{one.metric}{_fields((name, value) for name, value in asked if value is not None)}"


def _told_value(value: float | None, reason: str | None) -> str:
    return f"nothing ({reason})" if value is None else _plain(value)


def _of(event: str | None) -> str:
    return f" of event {event}" if event is not None else ""


def _fields(pairs: Iterable[tuple[str, object]]) -> str:
    told = ", ".join(f"{name}: {_plain(value)}" for name, value in pairs)
    return f" {{{told}}}" if told else ""


def _plain(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)
