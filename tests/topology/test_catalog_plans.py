"""Milestones and plans: what a bundle says of them, as it holds in a plan, and every fault with place, guess and fix."""

from __future__ import annotations

import pytest

from milepost.schemas import keys
from milepost.schemas.errors import BundleError
from milepost.topology.bases import instant
from milepost.topology.catalog import Action, Date, Need, check_owner
from tests.support.manual import MANUAL, bundle, findings, load

PLAN = 'on_time_2013: {bridge: "port-authority/*", milestones: [punctual_month], metrics: [on_time_rate, aircraft_in_service]}'
TEMPLATE = "punctual: {milestones: [punctual_month], metrics: [on_time_rate]}\n"
METAKEY = keys.metakey(bytes(range(16)))


def plans(*lines: str) -> tuple[str, str]:
    return PLAN, "\n  ".join(line.strip() for line in lines)


def test_a_milestone_is_typed() -> None:
    """Dates, grace, need and actions of the manual's milestone are what it says."""
    milestone = load().milestones["punctual_month"]
    assert (milestone.kind, milestone.grace_ms, milestone.need) == ("achieve", 2 * 86_400_000, Need(of="all"))
    assert milestone.start.ms("UTC") == instant("2013-02-01T00:00:00Z")
    assert milestone.actions["punctual"] == Action(
        name="punctual", metric="on_time_rate", window="28d", op=">=", value=0.8, sustain_ms=0, manual=None, affects=True, weight=1.0,
    )  # fmt: skip
    reviewed = milestone.actions["reviewed"]
    assert (reviewed.manual, reviewed.metric, reviewed.affects) == ("review held", None, False)


def test_dates_are_of_the_plans_zone_unless_they_name_one() -> None:
    """A date without a zone begins at midnight of the plan's zone; with an offset it is a moment."""
    assert Date(text="2013-03-01").ms("America/New_York") == instant("2013-03-01T05:00:00Z")
    assert Date(text="2013-03-01T06:30").ms("Europe/Berlin") == instant("2013-03-01T05:30:00Z")
    assert Date(text="2013-03-01t06:30:00z").ms("Europe/Berlin") == instant("2013-03-01T06:30:00Z")
    # The clock is turned back: 02:30 comes twice, the first one counts.
    assert Date(text="2013-10-27 02:30").ms("Europe/Berlin") == instant("2013-10-27T00:30:00Z")


@pytest.mark.parametrize(
    ("need", "wanted"),
    [
        ("all", Need(of="all")),
        ("{at_least: 1}", Need(of="at_least", amount=1)),
        ("{weight: 0.8}", Need(of="weight", amount=0.8)),
    ],
)
def test_a_need_is_all_a_number_or_a_weight(need: str, wanted: Need) -> None:
    """The three ways to say how much of the actions is needed."""
    assert load("need: all", f"need: {need}").milestones["punctual_month"].need == wanted


def test_a_plan_is_a_bridge_with_milestones_and_metrics() -> None:
    """A bridge with * is one for each company; with a MetaKey it is that company's."""
    plan = load().plans["on_time_2013"]
    assert (plan.org, plan.company, plan.tz, plan.template) == ("port-authority", None, "UTC", "")
    assert list(plan.milestones) == ["punctual_month"] and plan.metrics == ("on_time_rate", "aircraft_in_service")
    assert load("port-authority/*", f"port-authority/{METAKEY}").plans["on_time_2013"].company == bytes(range(16))


def test_a_plan_takes_its_templates_milestones_with_its_own_changes() -> None:
    """What a plan overrides differs in that plan alone; the rest is the template's."""
    catalog = load(
        *plans(
            TEMPLATE,
            'ua: {bridge: "port-authority/*", template: punctual, tz: America/New_York, metrics: [departures],',
            "overrides: {punctual_month: {deadline: 2013-04-01, actions: {punctual: {value: 0.7}}}}}",
            'aa: {bridge: "port-authority/*", template: punctual}',
        )
    )
    ua, aa, plain = catalog.plans["ua"], catalog.plans["aa"], catalog.milestones["punctual_month"]
    changed = ua.milestones["punctual_month"]
    assert changed.deadline.text == "2013-04-01" and changed.actions["punctual"].value == 0.7
    assert changed.start == plain.start and changed.actions["punctual"].window == "28d"
    assert aa.milestones["punctual_month"] is plain and changed.version != plain.version
    assert ua.metrics == ("on_time_rate", "departures") and aa.metrics == ("on_time_rate",)
    assert ua.template == "punctual" and catalog.plans["punctual"].org == ""


def test_a_templates_own_changes_reach_its_plans() -> None:
    """The template's override holds in the plan, and below the plan's own."""
    catalog = load(
        *plans(
            "punctual: {milestones: [punctual_month], overrides: {punctual_month: {grace: 5d, deadline: 2013-03-05}}}",
            'ua: {bridge: "port-authority/*", template: punctual, overrides: {punctual_month: {deadline: 2013-04-01}}}',
        )
    )
    made = catalog.plans["ua"].milestones["punctual_month"]
    assert (made.grace_ms, made.deadline.text) == (5 * 86_400_000, "2013-04-01")


def test_a_pin_holds_its_template_to_a_version() -> None:
    """name@version is accepted while the template says the same, and is a finding with the new version once it does not."""
    at = load(*plans(TEMPLATE, 'ua: {bridge: "p/*", template: punctual}')).plans["punctual"].terms.hex()
    lines = plans(TEMPLATE, f'ua: {{bridge: "p/*", template: punctual@{at}}}')
    assert load(*lines).plans["ua"].template == "punctual"
    moved = MANUAL.replace(*lines, 1).replace("value: 0.8", "value: 0.85", 1)
    (one,) = findings(bundle(moved))
    assert f"this plan pins {at}" in one.message and "template: punctual@" in one.fix and at not in one.fix
    assert moved.split("\n")[one.line - 1][one.column - 1 :].startswith("punctual@")


FAULTS: list[tuple[str, str, str, str, str]] = [
    # what is replaced, by what, words of the message, guess, words of the fix
    ("deadline: 2013-03-01", "deadline: 2013-01-31", "the deadline 2013-01-31 is not after the start", "", ""),
    ("deadline: 2013-03-01", "deadline: 2013-02-30", "there is no such time as 2013-02-30", "", ""),
    ("deadline: 2013-03-01", "deadline: 2033-03-01", "3660 days at most", "", ""),
    ("start: 2013-02-01", "start: 1969-02-01", "before 1970", "", ""),
    ("start: 2013-02-01", "start: 2013-02-01T00:07", "quarter of an hour", "", ""),
    ("window: 28d", "window: 4w", "window '4w' is neither all", "", "window: 28d"),
    ("window: 28d", "window: monht", "is neither all", "month", ""),
    ("window: 28d", "window: 4000d", "longer than 3660d", "", "window: 3660d"),
    ("window: 28d", "window: 20m", "not a multiple of 15 minutes", "", "window: 30m"),
    ("window: 28d", "window: 28d, sustain: 20m", "sustain is no multiple of 15m", "", "a multiple of 15m"),
    ("need: all", "need: {at_least: 2}", "a whole number from 1 to 1", "", "at_least: 1"),
    ("need: all", "need: {at_least: 0}", "a whole number from 1 to 1", "", "at_least: 1"),
    ("need: all", "need: {weight: 1.5}", "at most 1, the weights of the actions that affect it; 1.5 came", "", "weight: 1"),
    ("need: all", "need: {at_least: 1, weight: 0.5}", "need is all, {at_least: 2} or {weight: 0.8}", "", ""),
    ("need: all", "need: {atleast: 1}", "'at_least' or 'weight' was expected", "at_least", ""),
    ("affects: true}", "affects: false}", "no action affects the milestone", "", "affects: true"),
    ("affects: true}", "affects: true, weight: 0}", "a weight is more than 0", "", ""),
    ("manual: review held", "manual: review held, window: 1d", "a manual action takes only affects and weight", "", ""),
    ("manual: review held", "manual: review held, metric: departures", "not both", "", ""),
    ("{metric: on_time_rate", "{metric: departure_delay", "no metric is named", "departure_delay_sum", ""),
    ("port-authority/*", "port-authority/UA", "organisation/* or organisation/MetaKey", "", "port-authority/*"),
    ("port-authority/*", "port-authority", "a bridge, as in acme/*", "", ""),
    ('bridge: "port-authority/*", ', "", "'bridge' is missing", "", "bridge: organisation/*"),
    ("metrics: [on_time_rate, air", "tz: Amerika/New_York, metrics: [on_time_rate, air", "no IANA time zone", "America/New_York", ""),
    ("metrics: [on_time_rate, air", "metrics: [on_time_rat, air", "no metric is named", "on_time_rate", ""),
    ("milestones: [punctual_month]", "milestones: [punctual_month, punctual_month]", "is in this plan already", "", "leave it out"),
    ("milestones: [punctual_month]", "template: on_time", "no plan is named", "on_time_2013", ""),
    ("milestones: [punctual_month]", "template: on_time_2013", "has a template itself", "", ""),
    ("milestones: [punctual_month]", "milestones: [punctual_month], overrides: {punctual: {grace: 1d}}", "no milestone 'punctual'", "punctual_month", ""),
    (
        "milestones: [punctual_month]",
        "milestones: [punctual_month], overrides: {punctual_month: {actions: {punctul: {value: 1}}}}",
        "no action 'punctul'",
        "punctual",
        "",
    ),
    (
        "milestones: [punctual_month]",
        "milestones: [punctual_month], overrides: {punctual_month: {deadline: 2012-01-01}}",
        "the deadline 2012-01-01 is not after the start",
        "",
        "",
    ),
    (
        "milestones: [punctual_month]",
        "milestones: [punctual_month], overrides: {punctual_month: {dedline: 2014-01-01}}",
        "'dedline' is no key",
        "deadline",
        "",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message", "guess", "fix"), FAULTS, ids=[one[1][:40] for one in FAULTS])
def test_a_fault_is_told_with_its_line_guess_and_fix(old: str, new: str, message: str, guess: str, fix: str) -> None:
    """Each fault has a finding in the line where it stands, with what was meant and what to write."""
    text = MANUAL.replace(old, new, 1)
    assert text != MANUAL
    found = findings(bundle(text))
    line = MANUAL[: MANUAL.index(old)].count("\n") + 1
    hits = [one for one in found if message in one.message and guess == one.guess and fix in one.fix]
    assert hits, found
    assert line <= hits[0].line <= line + 1 and hits[0].column >= 1


def test_a_window_must_have_an_exact_answer_in_the_plans_zone() -> None:
    """A daily metric has days of UTC: a plan in another zone is told so, at the place of its zone."""
    daily = "unit: ratio}\n  daily: {from: departed, aggregate: count, grain: 1d}"
    text = MANUAL.replace("unit: ratio}", daily, 1).replace(
        "{metric: on_time_rate, window: 28d", "{metric: daily, window: month", 1
    )
    assert load_or_findings(text) == []
    zoned = text.replace('bridge: "port-authority/*"', 'bridge: "port-authority/*", tz: America/New_York', 1)
    (one,) = load_or_findings(zoned)
    assert "grain is 1d" in one
    assert "grain is 1d" in load_or_findings(text.replace("window: month", "window: 12h", 1))[0]


def load_or_findings(text: str) -> list[str]:
    try:
        load(MANUAL, text)
    except BundleError as error:
        return [one.message for one in error.findings]
    return []


def test_a_broken_milestone_is_told_once() -> None:
    """The plan of a milestone with a finding has none of its own."""
    (one,) = findings(bundle(MANUAL.replace("window: 28d", "window: 28", 1)))
    assert one.line == MANUAL[: MANUAL.index("window: 28d")].count("\n") + 1


def test_a_bridge_of_another_organisation_is_not_applied() -> None:
    """A bundle is applied for the organisation of its bridges; the finding says how to write it."""
    check_owner(bundle(), "port-authority")
    with pytest.raises(BundleError) as raised:
        check_owner(bundle(), "acme")
    (one,) = raised.value.findings
    assert (
        "'port-authority'" in one.message
        and one.fix == "acme/*"
        and one.line == MANUAL[: MANUAL.index("bridge:")].count("\n") + 1
    )
