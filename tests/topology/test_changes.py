"""Changes: what is added, removed and re-versioned, why, what it touches, and what becomes of the history."""

from __future__ import annotations

import pytest

from milepost.topology.catalog import Catalog
from milepost.topology.changes import HAS, KEEPS, OWN, TAKES_UP, Change, compared, kept, lines
from tests.support.manual import MANUAL, load

NARROW = ("data.dep_delay <= 15.0", "data.dep_delay < 15.0")


def named(changes: tuple[Change, ...]) -> dict[str, Change]:
    return {f"{one.what} {one.name}": one for one in changes}


def changed(old: str, new: str, *earlier: Catalog) -> dict[str, Change]:
    return named(compared(load(), load(old, new), earlier))


def test_a_changed_rule_moves_what_is_made_of_it_and_says_why() -> None:
    """The chain from a rule to a plan: each link changed because of the one below, with versions before and after."""
    found = changed(*NARROW)
    assert {name: one.because for name, one in found.items()} == {
        "signal departed_on_time": (OWN,),
        "metric on_time_departures": ("signal departed_on_time",),
        "metric on_time_rate": ("metric on_time_departures",),
        "milestone punctual_month": ("metric on_time_rate",),
        "plan on_time_2013": ("milestone punctual_month", "metric on_time_rate"),
    }
    assert all(one.how == "changed" and one.before != one.after for one in found.values())
    assert found["signal departed_on_time"].touches == (
        "metric on_time_departures", "metric on_time_rate", "milestone punctual_month", "plan on_time_2013",
    )  # fmt: skip
    assert found["plan on_time_2013"].touches == ()


def test_nothing_changes_where_nothing_is_meant_otherwise() -> None:
    """A comment, another spelling, a longer way to say two days: no change, and everything is kept."""
    after = load("# who answers for it", "# nobody")
    assert compared(load(), after) == ()
    assert kept(load(), after) == {
        "source": 2, "signal": 2, "metric": 7, "record": 1, "milestone": 1, "plan": 1, "reaction": 1,
    }  # fmt: skip
    assert lines((), {}, first=False) == ["nothing would change"]


def test_a_metric_keeps_its_history_when_its_cells_are_the_same() -> None:
    """A new unit is a new version over the same cells; another rule below it begins anew; a new formula has it all."""
    assert changed("unit: ratio", "unit: share")["metric on_time_rate"].history == KEEPS
    assert "begins anew" in changed(*NARROW)["metric on_time_rate"].history
    added = changed(
        "on_time_rate: {formula", "late: {formula: departures - on_time_departures}\n  on_time_rate: {formula"
    )
    assert (added["metric late"].how, added["metric late"].history) == ("added", HAS)
    count = changed("on_time_rate: {formula", "again: {from: departed, aggregate: count}\n  on_time_rate: {formula")
    assert "begins empty" in count["metric again"].history


def test_a_definition_that_comes_back_takes_up_its_history_with_a_gap() -> None:
    """Going back to a version that had cells is not the same as never having left it, and the plan says so."""
    found = named(compared(load(*NARROW), load(), [load()]))
    assert found["metric on_time_departures"].history == TAKES_UP
    assert "begins anew" in named(compared(load(*NARROW), load()))["metric on_time_departures"].history


def test_what_is_removed_is_told_with_what_it_touched() -> None:
    """A formula that goes touches the milestone and the plan that no longer have it."""
    text = MANUAL[: MANUAL.index("milestones:")].replace(
        "  on_time_rate: {formula: on_time_departures / departures, unit: ratio}\n", ""
    )
    found = named(compared(load(), load(MANUAL, text)))
    assert {name for name, one in found.items() if one.how == "removed"} == {
        "metric on_time_rate", "milestone punctual_month", "plan on_time_2013", "reaction tell",
    }  # fmt: skip
    assert found["metric on_time_rate"].touches == ("milestone punctual_month", "plan on_time_2013")
    assert found["metric on_time_rate"].after == "" and "as_shown" in found["metric on_time_rate"].history


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("owner: ops@example.org", "owner: me@example.org", {"source flights": (OWN,)}),
        ("value: 0.8", "value: 0.9", {"milestone punctual_month": (OWN,), "plan on_time_2013": ("milestone punctual_month",)}),
        ('bridge: "port-authority/*"', 'bridge: "port-authority/*", tz: America/New_York', {"plan on_time_2013": (OWN,)}),
        (
            "milestones: [punctual_month]",
            "milestones: [punctual_month], overrides: {punctual_month: {grace: 1d}}",
            {"plan on_time_2013": (OWN,)},
        ),
        ("on_replay: suppress", "on_replay: send", {"reaction tell": (OWN,)}),
        ("op: upsert", "op: update", {"record aircraft": (OWN,)}),
        (
            "records:",
            "identity: {blocked: {carrier_code: ['n/a']}}\nrecords:",
            {"identity protection": ()},
        ),
    ],
)  # fmt: skip
def test_a_change_of_its_own_text_is_its_own(old: str, new: str, wanted: dict[str, tuple[str, ...]]) -> None:
    """Each section's own changes are told as such, and only they."""
    assert {name: one.because for name, one in changed(old, new).items()} == wanted


def test_a_contract_moves_the_rules_that_read_it() -> None:
    """A field more in a contract is a new version of source, rules and metrics, because of the source."""
    text = MANUAL.replace("{schema: FlightCancelled}", "{schema: FlightDeparted}", 1)
    assert set(named(compared(load(), load(MANUAL, text)))) == {"source flights"}
    other = MANUAL.replace("{schema: FlightDeparted}", "{schema: FlightCancelled}", 1)
    other = (
        other[: other.index("signals:")]
        + "signals:\n  departed: {on: flight.departed, fields: {origin: data.origin}}\n"
    )
    found = named(compared(load(), load(MANUAL, other)))
    assert found["signal departed"].because == (OWN, "source flights")


def test_a_template_moves_the_plans_made_from_it() -> None:
    """A plan with a template changes because of the template, not of each thing in it."""
    templated = 'punctual: {milestones: [punctual_month]}\n  on_time_2013: {bridge: "p/*", template: punctual, metrics: [departures]}'
    text = MANUAL[: MANUAL.index("  on_time_2013")] + "  " + templated + MANUAL[MANUAL.index("\nreactions:") :]
    found = named(compared(load(MANUAL, text), load(MANUAL, text.replace("value: 0.8", "value: 0.9", 1))))
    assert {name: one.because for name, one in found.items()} == {
        "milestone punctual_month": (OWN,),
        "plan punctual": ("milestone punctual_month",),
        "plan on_time_2013": ("plan punctual",),
    }
    assert found["milestone punctual_month"].touches == ("plan punctual", "plan on_time_2013")


def test_what_is_touched_is_bounded() -> None:
    """Beyond fifty names the rest is a number."""
    many = "".join(f"  m{i}: {{formula: on_time_rate * {i}.0}}\n" for i in range(60))
    text = MANUAL.replace("records:", many + "records:", 1)
    found = compared(load(MANUAL, text), load(MANUAL, text.replace(*NARROW, 1)))
    rule = next(one for one in found if one.what == "signal")
    assert (len(rule.touches), rule.touched) == (50, 64)
    assert any(one.endswith(" and 14 more") for one in lines(found, {}, first=False))


def test_the_first_bundle_is_a_plain_list() -> None:
    """Against nothing everything is added, in the order of the line."""
    changes = compared(None, load())
    assert {one.how for one in changes} == {"added"}
    told = lines(changes, kept(None, load()), first=True)
    assert told[0] == "  added    source flights" and "nothing was in force" in told[-1]
    whats = [one.what for one in changes]
    assert whats == sorted(whats, key=["source", "signal", "metric", "record", "milestone", "plan", "reaction"].index)


def test_the_text_says_why_and_what_is_touched() -> None:
    """A changed rule's lines: what, why, what becomes of it, what it touches, and what is kept."""
    told = lines(compared(load(), load(*NARROW)), kept(load(), load(*NARROW)), first=False)
    assert told[0].startswith("  changed  signal departed_on_time") and "judges events from here on" in told[0]
    assert told[1].strip().startswith("touches metric on_time_departures, metric on_time_rate, milestone")
    assert "because of signal departed_on_time: begins anew" in told[2]
    assert told[-1] == "  2 sources, 1 signal, 5 metrics, 1 record, 1 reaction keep their versions and their history"
