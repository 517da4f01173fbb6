"""Rule cases: what is expected of a rule, held against what comes; every fault of a case has its place and a guess."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from milepost.schemas.errors import BundleError, Finding
from milepost.topology.driver import Driver
from milepost.topology.rule_cases import MilestoneExpected, read_cases
from milepost.topology.rule_runs import Difference, Evaluate, Result, run_cases
from tests.support.manual import bundle
from tests.support.small import FILES

GIVEN = """\
defaults: {type: visit, data: {company: "1", page: home}}
tests:
  visits:
    given:
      - {id: a, time: 2025-01-01T10:00:00Z, data: {minutes: 31}}
      - {id: b, time: 2025-01-01T11:00:00Z, data: {minutes: 30, page: plans}}
      - {id: b, data: {minutes: 30, page: plans}}
    expect:
"""
RIGHT = """\
      signals:
        - {signal: long_visit, event: a}
        - {signal: visited, event: b, fields: {minutes: 30, page: plans}}
        - {signal: visited, fields: {minutes: 31.0}}
      metrics:
        - {metric: visits, value: 2}
        - {metric: visits, dim.page: plans, company: "crm_id:1", value: 1}
        - {metric: long_rate, window: day, value: 0.5}
        - {metric: devices, reason: no_events}
        - {metric: minutes_avg, at: 2025-01-01T10:30:00Z, basis: as_shown, value: 31}
"""


def results(text: str, milestones: Evaluate | None = None) -> list[Result]:
    return list(run_cases(FILES, read_cases({"tests/visits.yaml": text.encode()}), milestones))


def differences(expect: str) -> list[tuple[str, str, str]]:
    (one,) = results(GIVEN + expect)
    return [(each.what, each.expected, each.came) for each in one.differences]


def findings(text: str) -> Sequence[Finding]:
    with pytest.raises(BundleError) as raised:
        results(text)
    return raised.value.findings


def test_a_case_that_is_right_has_no_differences() -> None:
    """Signals in any order, fields that are not named, repeats, questions with parameters: as the engine says."""
    (one,) = results(GIVEN + RIGHT)
    assert one.passed, one.differences
    assert (one.file, one.line, one.name) == ("tests/visits.yaml", 3, "visits")


@pytest.mark.parametrize(
    ("expect", "what", "expected", "came"),
    [
        (
            "      signals: [{signal: visited}, {signal: long_visit}]\n",
            "signal", "", "visited of event b {minutes: 30, page: plans, plan: free}",
        ),
        (
            "      signals: [{signal: visited}, {signal: visited, fields: {minutes: 29}}, {signal: long_visit}]\n",
            "signal", "visited {minutes: 29}", "visited of event b {minutes: 30, page: plans, plan: free}",
        ),
        (
            "      signals: [{signal: visited}, {signal: visited}, {signal: long_visit}, {signal: long_visit, event: b}]\n",
            "signal", "long_visit of event b", "",
        ),
        ("      metrics: [{metric: visits, value: 3}]\n", "metric", "visits = 3", "visits = 2"),
        ("      metrics: [{metric: visits, reason: no_events}]\n", "metric", "visits = nothing (no_events)", "visits = 2"),
        (
            "      metrics: [{metric: visit, value: 2}]\n",
            "metric", "visit = 2", "visit = refused: acme has no metric 'visit'; did you mean visits?",
        ),
        (
            "      dead_letters: [{reason: contract_violation, event: a}]\n",
            "dead letter", "contract_violation of event a", "",
        ),
    ],
)  # fmt: skip
def test_a_case_that_is_wrong_says_what_was_expected_and_what_came(
    expect: str, what: str, expected: str, came: str
) -> None:
    """One thing wrong is one difference, beside what is most like it."""
    assert differences(expect) == [(what, expected, came)]


def test_a_difference_stands_where_it_is_expected() -> None:
    """Line and column are those of the expectation."""
    (one,) = results(GIVEN + RIGHT.replace("value: 0.5", "value: 0.25"))
    (difference,) = one.differences
    line = (GIVEN + RIGHT).split("\n")[difference.line - 1]
    assert "long_rate" in line and line[difference.column - 1] == "{"


def test_a_dead_letter_that_nobody_expects_is_a_difference() -> None:
    """An event that breaks its contract does not pass for one that a rule declined."""
    text = GIVEN.replace("minutes: 31", "minutes: many") + "      metrics: [{metric: long_visits, reason: no_events}]\n"
    (one,) = results(text)
    assert [(each.what, each.came) for each in one.differences] == [
        ("dead letter", "contract_violation of event a: data.minutes: a number was expected, text came")
    ]
    expected = "      dead_letters: [{reason: contract_violation, event: a, detail: data.minutes}]\n"
    assert results(text.replace("      metrics", expected + "      metrics"))[0].passed


def test_an_event_arrives_when_it_happened_unless_it_says_when() -> None:
    """A late event is not in what was shown before it arrived, and `now` is behind the last arrival."""
    text = """\
tests:
  late:
    given:
      - {type: visit, time: 2025-01-01T10:00:00Z, known: 2025-01-03T00:00:00Z, data: {company: "1"}}
      - {type: visit, time: 2025-01-02T10:00:00Z, data: {company: "1"}}
    expect:
      metrics:
        - {metric: visits, at: 2025-01-02T23:00:00Z, basis: as_shown, reason: no_events}
        - {metric: visits, at: 2025-01-02T23:00:00Z, value: 2}
        - {metric: visits, window: 1d, value: 1}
"""
    (one,) = results(text)
    assert one.passed, one.differences


def test_the_same_case_gives_the_same_result() -> None:
    """A case has no clock and no chance in it."""
    text = GIVEN + RIGHT.replace("value: 2}", "value: 9}")
    assert results(text) == results(text)


FAULTS = [
    ("tests:", "test:", "'test' is no key of a file of tests", "tests", ""),
    ("data: {minutes: 31}", "dat: {minutes: 31}", "'dat' is no key of tests.visits.given.0", "data", ""),
    ("signal: long_visit", "signal: long_visits", "no signal is named 'long_visits'", "long_visit", ""),
    ("data: {minutes: 31}", "data: {minutes: 123456789012345678901234}", "data can be no JSON", "", ""),
    ("data: {minutes: 31}", 'data: {page: "\\ud800"}', "half a letter", "", "the letter itself"),
    ("event: a}", "event: c}", "no given event has the id 'c'", "", ""),
    ("value: 0.5", "valu: 0.5", "'valu' is no key", "value", ""),
    (", value: 2}", "}", "an expected metric has a value, or a reason", "", ""),
    ("value: 2}", "value: 2, reason: no_events}", "an expected metric has a value, or a reason", "", ""),
    ("at: 2025-01-01T10:30:00Z", "at: yesterday", "the time is no RFC 3339 time", "", ""),
    ("{type: visit, data", "{data", "the event has no type", "", "type:"),
    ("{type: visit, data", "{type: visited, data", "which source is it from", "", "source:"),
    ("{id: b, data", "{id: b, known: 2025-01-01T10:59:00Z, data", "arrivals are in order", "", "further up"),
    (
        "      metrics:\n",
        "      dead_letters: [{reason: contract}]\n      metrics:\n",
        "'not_decodable'",
        "contract_violation",
        "",
    ),
]


@pytest.mark.parametrize(("old", "new", "message", "guess", "fix"), FAULTS)
def test_a_fault_of_a_case_is_told_with_its_line_guess_and_fix(
    old: str, new: str, message: str, guess: str, fix: str
) -> None:
    """A case that names what there is not is no failed test but a finding, before anything runs."""
    whole = GIVEN + RIGHT
    assert old in whole
    hits = [one for one in findings(whole.replace(old, new, 1)) if message in one.message]
    assert hits and hits[0].file == "tests/visits.yaml" and hits[0].guess == guess and fix in hits[0].fix
    if "type" not in message and "source" not in message:
        assert abs(hits[0].line - whole[: whole.index(old)].count("\n") - 1) <= 1


def test_milestones_are_refused_until_something_evaluates_them() -> None:
    """Without an evaluator a case that expects a milestone is refused; with one its state is compared."""
    text = GIVEN + "      milestones: [{milestone: punctual_month, state: achieved}]\n"
    (one,) = findings(text)
    assert "milestones cannot be tested yet" in one.message and one.fix == "leave milestones out"

    def state(driver: Driver, org: str, asked: MilestoneExpected) -> str:
        return "missed" if asked.milestone == "punctual_month" and org == "acme" else "pending"

    assert results(text, state)[0].differences == (
        Difference(
            what="milestone", line=9, column=20, expected="punctual_month is achieved", came="punctual_month is missed"
        ),
    )
    assert results(text.replace("achieved", "missed"), state)[0].passed


def test_the_organisation_is_that_of_the_bridges() -> None:
    """Rules see event.org: it is the one that the bundle's plans name, unless the file names another."""
    files = bundle()
    files["milepost.yaml"] = files["milepost.yaml"].replace(b"data.dep_delay <= 15.0", b"event.org == 'port-authority'")
    text = """\
tests:
  whose:
    given:
      - {type: flight.departed, data: {carrier: UA, origin: EWR, dest: IAH, dep_delay: 1}}
    expect:
      metrics: [{metric: on_time_departures, value: 1}]
"""
    assert next(run_cases(files, read_cases({"tests/a.yaml": text.encode()}))).passed
    other = "defaults: {org: another}\n" + text
    (one,) = next(run_cases(files, read_cases({"tests/a.yaml": other.encode()}))).differences
    assert one.came == "on_time_departures = nothing (no_events)"


def test_files_that_are_none_are_told_together() -> None:
    """Findings of several files come at once, each under its file."""
    with pytest.raises(BundleError) as raised:
        read_cases({"tests/a.yaml": b"- 1", "tests/b.yaml": b"\xff", "tests/c.yaml": b"#" * (2**20 + 1)})
    assert [one.file for one in raised.value.findings] == ["tests/a.yaml", "tests/b.yaml", "tests/c.yaml"]
