"""Rule cases: tests of a bundle's rules as data.  What may be written in `tests/*.yaml`, read with its places.

    tests:
      an hour late is late:                      given events, in the order of their arrival
        given: [{time: 2013-01-01T05:17-05:00, data: {dep_delay: 60}}]
        expect:
          signals: [{signal: departed, fields: {delay: 60}}]        all of them; fields that are not named do not matter
          metrics: [{metric: on_time_rate, value: 0}]               asked as over HTTP

A dead letter that is not expected is a difference, also where `dead_letters` is left out: a rule that fails would
otherwise look like a rule that says no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from milepost.schemas.errors import BundleError, Finding, Reason
from milepost.topology.bundle import EventType, Name
from milepost.topology.definitions import State
from milepost.topology.document import Document, Path
from milepost.topology.faults import Shape, read_model

BYTES_MAX: Final = 1024 * 1024
CASES_MAX: Final = 1_000
EVENTS_MAX: Final = 10_000
DIM: Final = "dim."

Part = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=1_024)]
Number = int | float


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class DefaultsText(_Model):
    """What each event has unless it says otherwise; `data` is merged field by field."""

    org: Part | None = None
    source: Part | None = None
    type: EventType | None = None
    data: dict[str, Any] = {}


class GivenText(_Model):
    """An event.

    id:     its number in the case, unless given;  source: the only one that has its type, unless given
    time:   that of the event before it, unless given
    known:  when it arrived; else when it happened, but never before the event before it
    """

    id: Part | None = None
    source: Part | None = None
    type: EventType | None = None
    time: Short | None = None
    known: Short | None = None
    revision: int = 0
    void: bool = False
    data: dict[str, Any] = {}


class SignalExpected(_Model):
    signal: Name
    event: Part | None = None
    fields: dict[Name, Any] = {}


class DeadLetterExpected(_Model):
    """`detail`: words of it."""

    reason: Reason
    event: Part | None = None
    rule: Name | None = None
    detail: Short | None = None


def _dims(value: object) -> object:
    """`dim.origin: EWR` as an entry of `dims`."""
    if not isinstance(value, dict):
        return value
    plain = {name: one for name, one in value.items() if not name.startswith(DIM)}
    dims = {name.removeprefix(DIM): one for name, one in value.items() if name.startswith(DIM)}
    return {**plain, "dims": dims} if dims else plain


class MetricExpected(_Model):
    """A question and its answer: `value`, or null with a `reason`."""

    metric: Name
    company: Short | None = None
    at: Short | None = None
    basis: Short | None = None
    window: Short = "all"
    tz: Short = "UTC"
    dims: dict[str, str] = {}
    value: Number | None = None
    reason: Short | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> MetricExpected:
        if (self.value is None) == (self.reason is None):
            raise ValueError("an expected metric has a value, or a reason why there is none")
        return self


class MilestoneExpected(_Model):
    milestone: Name
    state: State
    plan: Name | None = None
    company: Short | None = None
    at: Short | None = None
    basis: Short | None = None


class ExpectText(_Model):
    signals: list[SignalExpected] | None = None
    dead_letters: list[DeadLetterExpected] = []
    metrics: list[Annotated[MetricExpected, BeforeValidator(_dims)]] = []
    milestones: list[MilestoneExpected] = []


class CaseText(_Model):
    """`now`: the time at which is asked; else right behind the last arrival."""

    given: Annotated[list[GivenText], Field(max_length=EVENTS_MAX)] = []
    now: Short | None = None
    expect: ExpectText


class FileText(_Model):
    defaults: DefaultsText = DefaultsText()
    tests: Annotated[
        dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], CaseText],
        Field(min_length=1, max_length=CASES_MAX),
    ]


SHAPE: Final = Shape(
    whole="a file of tests",
    patterns={},
    models={
        (): FileText,
        ("defaults",): DefaultsText,
        ("tests", "*"): CaseText,
        ("tests", "*", "given", "*"): GivenText,
        ("tests", "*", "expect"): ExpectText,
        ("tests", "*", "expect", "signals", "*"): SignalExpected,
        ("tests", "*", "expect", "dead_letters", "*"): DeadLetterExpected,
        ("tests", "*", "expect", "metrics", "*"): MetricExpected,
        ("tests", "*", "expect", "milestones", "*"): MilestoneExpected,
    },
)

Kind = Literal["signal", "dead letter", "metric", "milestone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test, and where it stands."""

    file: str
    name: str
    text: CaseText
    defaults: DefaultsText
    document: Document

    @property
    def line(self) -> int:
        return self.document.keys[self.path()][0]

    def path(self, *below: str | int) -> Path:
        return ("tests", self.name, *below)

    def place(self, *below: str | int) -> tuple[int, int]:
        """Line and column of a value of the case, or of what is nearest above it."""
        found = self.document.finding(self.path(*below), "")
        return found.line, found.column

    def finding(self, below: Path, message: str, *, guess: str = "", fix: str = "") -> Finding:
        return self.document.finding(self.path(*below), message, guess=guess, fix=fix)


def read_cases(files: Mapping[str, bytes]) -> tuple[Case, ...]:
    """The tests of some files by name, in order.  Raises BundleError with every finding."""
    cases: list[Case] = []
    findings: list[Finding] = []
    for file, text in sorted(files.items()):
        if len(text) > BYTES_MAX:
            message = f"a file of tests has at most {BYTES_MAX} bytes, {len(text)} came"
            findings.append(Finding(file=file, line=1, column=1, message=message))
            continue
        try:
            model, document = read_model(file, text, FileText, SHAPE)
        except BundleError as error:
            findings.extend(error.findings)
            continue
        cases += [
            Case(file=file, name=name, text=case, defaults=model.defaults, document=document)
            for name, case in model.tests.items()
        ]
    if findings:
        raise BundleError(findings)
    return tuple(cases)
