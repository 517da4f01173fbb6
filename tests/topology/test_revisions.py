"""Late, early, amended, voided: what a later version of an event changes, and what it leaves as it was (S1)."""

from __future__ import annotations

import random
from itertools import permutations
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.schemas.keys import raw_key
from milepost.topology import metrics
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.revisions import Known, changes, difference
from milepost.topology.steps import run
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

MINUTE = HOUR // 60
TEN = T0 + 10 * HOUR
Sent = tuple[dict[str, Any], int]


def engine(*sent: Sent, **options: Any) -> Driver:
    """The tables after these events, each known at its time, in this order of arrival."""
    files = options.pop("files", FILES)
    made = Driver(SECRET, **options)
    made.apply(ORG, files, T0 - HOUR)
    for event, k_ms in sent:
        made.produce(event, T0 + 400 * DAY, known_ms=k_ms)
    made.run()
    return made


def value(made: Driver, metric: str, at: int | None = None, basis: str | None = None, **asked: Any) -> Any:
    question = Question(metric=metric, now_ms=T0 + 400 * DAY, at_ms=at, basis=basis, **asked)
    return run(Questions(made.reader).value(question))["value"]


def shown(made: Driver, metric: str, at: int, **asked: Any) -> Any:
    return value(made, metric, at, "as_shown", **asked)


def amended(event: dict[str, Any], revision: int, **more: Any) -> dict[str, Any]:
    data = {**event["data"], **more.pop("data", {})}
    return {**event, "revision": revision, "data": data, **more}


def reasons(made: Driver) -> list[str]:
    return [letter["reason"] for letter in made.dead_letters]


def test_a_late_event_changes_the_corrected_past_and_not_the_shown_one() -> None:
    """e1(t=10:00,k=10:01), then e2(t=10:00,k=12:00) arrives: as_shown 11:00 is 1 before and after; corrected 11:00 goes
    from 1 to 2; as_shown 12:15 is 2."""
    e1, e2 = (visit("e1", TEN), TEN + MINUTE), (visit("e2", TEN), TEN + 2 * HOUR)
    before, after = engine(e1), engine(e1, e2)
    for made, corrected in ((before, 1), (after, 2)):
        assert shown(made, "visits", TEN + HOUR) == 1
        assert value(made, "visits", TEN + HOUR) == corrected
    assert shown(after, "visits", TEN + 2 * HOUR + 15 * MINUTE) == 2


def test_a_greatest_value_amended_to_a_smaller_one() -> None:
    """max: 10 amended to 7 gives 7, and 10 as shown before."""
    event = visit("e", TEN, minutes=10.0)
    made = engine((event, TEN + MINUTE), (amended(event, 1, data={"minutes": 7.0}), TEN + 5 * HOUR))
    assert value(made, "minutes_max") == 7 and value(made, "minutes_max", TEN + HOUR) == 7
    assert shown(made, "minutes_max", TEN + HOUR) == 10
    assert shown(made, "minutes_max", TEN + 6 * HOUR) == 7
    assert (value(made, "minutes_sum"), shown(made, "minutes_sum", TEN + HOUR)) == (7, 10)


def test_a_void_takes_the_event_back() -> None:
    """A voided event counts for nothing from the void's known time on, and for what it was before."""
    event, other = visit("e", TEN, minutes=10.0, device="d1"), visit("o", TEN, minutes=4.0, device="d2")
    made = engine((event, TEN), (other, TEN), (amended(event, 1, void=True), TEN + 5 * HOUR))
    for metric, then, now in (
        ("visits", 2, 1), ("minutes_sum", 14, 4), ("minutes_avg", 7, 4), ("minutes_max", 10, 4), ("minutes_min", 4, 4),
        ("devices", 2, 1),
    ):  # fmt: skip
        assert (shown(made, metric, TEN + HOUR), value(made, metric)) == (then, now), metric


def test_everything_taken_back_is_no_events() -> None:
    """Where all events are void the value is null, as where there never was one."""
    event = visit("e", TEN, minutes=10.0, device="d1")
    made = engine((event, TEN), (amended(event, 1, void=True), TEN + HOUR))
    for metric in ("visits", "minutes_sum", "minutes_max", "minutes_last", "devices"):
        assert value(made, metric) is None


def test_a_revision_may_move_the_event_to_another_time() -> None:
    """An amended time takes the event out of its pane and puts it into another, each from the same known time on."""
    event = visit("e", TEN, minutes=10.0)
    made = engine((event, TEN), (amended(event, 1, time=visit("x", TEN - 3 * DAY)["time"]), TEN + HOUR))
    for metric, one in (("visits", 1), ("minutes_max", 10), ("minutes_last", 10)):
        assert value(made, metric, TEN - 2 * DAY) == one
        assert value(made, metric, TEN + DAY, window="1d") is None
        assert shown(made, metric, TEN + 30 * MINUTE, window="1d") == one


def test_of_revisions_out_of_order_the_higher_counts_from_its_own_k() -> None:
    """A lower revision that comes later is superseded from the start, and one that was known earlier counts until the
    higher one does."""
    event = visit("e", TEN, minutes=1.0)
    high, low = amended(event, 2, data={"minutes": 3.0}), amended(event, 1, data={"minutes": 2.0})
    made = engine((high, TEN + HOUR), (low, TEN + 2 * HOUR), (event, TEN))
    assert value(made, "minutes_sum") == 3 and value(made, "visits") == 1
    assert shown(made, "minutes_sum", TEN + 30 * MINUTE) == 1
    assert shown(made, "minutes_sum", TEN + 90 * MINUTE) == 3 == shown(made, "minutes_sum", TEN + 9 * HOUR)
    assert made.fates["measure"]["superseded"] == 1


def test_a_repair_counts_above_its_revision() -> None:
    """Order is (revision, repair): a repaired revision replaces it, and a higher revision replaces both."""
    event = visit("e", TEN, minutes=1.0)
    repaired = {**amended(event, 0, data={"minutes": 2.0}), "repair": 1}
    made = engine((event, TEN), (repaired, TEN + HOUR))
    assert value(made, "minutes_sum") == 2
    made = engine((event, TEN), (amended(event, 1, data={"minutes": 5.0}), TEN + HOUR), (repaired, TEN + 2 * HOUR))
    assert value(made, "minutes_sum") == 5


def test_an_amendment_may_not_change_the_company() -> None:
    """A revision that names another company is a dead letter, whichever of them came first."""
    event = visit("e", TEN)
    changed = amended(event, 1, data={"company": "2"})
    for first, second in ((event, changed), (changed, event)):
        made = engine((first, TEN), (second, TEN + HOUR))
        assert reasons(made) == ["identity_changed"]
        assert value(made, "visits", company=f"crm_id:{first['data']['company']}") == 1


def test_a_record_under_a_wrong_key_is_no_exception() -> None:
    """It counts when its copy comes: a revision that names another company and came in between is there before it."""
    made, event = engine(partitions=1), visit("e", TEN)
    made.append("raw-events", 0, b"a key of their own", orjson.dumps(event), (), TEN)
    made.produce(amended(event, 1, data={"company": "2"}), TEN + HOUR)
    made.run()
    assert reasons(made) == ["identity_changed"]
    assert (value(made, "visits"), value(made, "visits", company="crm_id:2")) == (1, 1)


def test_a_first_that_was_a_dead_letter_bars_nothing() -> None:
    """A first that ended as a dead letter does not bar a resend: the resend becomes the first."""
    broken = visit("e", TEN, minutes="ten")
    made = engine((broken, TEN), (visit("e", TEN, minutes=10.0), TEN + HOUR))
    assert reasons(made) == ["contract_violation"] and value(made, "minutes_sum") == 10
    assert shown(made, "visits", TEN + 30 * MINUTE) is None


def test_an_event_too_far_ahead_is_a_dead_letter() -> None:
    """Further ahead than `future_skew` is `future_event`; up to it is not."""
    ahead = [(visit(f"e{more}", TEN + 10 * MINUTE + more), TEN) for more in (0, 1)]
    assert reasons(engine(*ahead)) == ["future_event"] and value(engine(*ahead), "visits") == 1


def histories(many: int, seed: int = 1) -> list[Sent]:
    """Events with up to four revisions each, amended, moved, voided, in a few panes."""
    chance = random.Random(seed)
    sent: list[Sent] = []
    for i in range(many):
        t_ms = TEN + chance.randrange(6) * 10 * MINUTE
        event = visit(f"e{i}", t_ms, company=str(1 + i % 2), minutes=float(chance.randrange(-3, 9)), device=f"d{i % 4}",
                      page=f"p{chance.randrange(3)}", plan=chance.choice(("free", "pro")))  # fmt: skip
        for revision in range(chance.randrange(4) + 1):
            data = {
                "minutes": float(chance.randrange(-3, 9)),
                "device": f"d{chance.randrange(4)}",
                "page": f"p{chance.randrange(3)}",
            }
            time = (
                visit("x", TEN + chance.randrange(6) * 10 * MINUTE)["time"] if chance.random() < 0.3 else event["time"]
            )
            one = amended(event, revision, data=data, time=time, void=chance.random() < 0.2)
            sent.append((one, TEN + HOUR + chance.randrange(40) * 20 * MINUTE))
    return sent


@pytest.mark.parametrize("options", [{}, {"chunk": 1}, {"chunk": 7, "seed": 3}, {"partitions": 1}, {"partitions": 3}])
def test_any_permutation_of_arrival_gives_equal_digests(options: dict[str, Any]) -> None:
    """Any permutation of arrival with the same k gives equal digests."""
    sent = histories(40)
    expected = digest(engine(*sent).reader)
    for order in range(4):
        mixed = list(sent)
        random.Random(order).shuffle(mixed)
        assert digest(engine(*mixed, **options).reader) == expected


def test_one_amended_value_shows_in_the_digest() -> None:
    """Positive control: another value in one revision, or one revision less, is another digest."""
    sent = histories(40)
    expected = digest(engine(*sent).reader)["total"]
    assert digest(engine(*sent[:-1]).reader)["total"] != expected
    event, k_ms = sent[-1]
    other = {**event, "data": {**event["data"], "minutes": 77.0}, "void": False}
    assert digest(engine(*sent[:-1], (other, k_ms)).reader)["total"] != expected


def test_day_rows_of_amended_cells_are_derived_alike() -> None:
    """The day rows that a restore makes from cells are those that the fold has kept."""
    made = engine(*histories(60), partitions=3)
    shapes = {one.version: one.shape for catalog in made.decisions.catalogs.values() for one in catalog.measures}
    found = 0
    for number in range(3):
        stores = made.state["measure", number].stores
        cells = stores["cells"].scan(b"", b"\xff" * 64)
        derived = {key: row[8:] for key, row in metrics.all_day_rows(cells, shapes)}
        assert derived == {key: row[8:] for key, row in stores["days"].scan(b"", b"\xff" * 64)}
        found += len(derived)
    assert found > 20


def test_a_store_without_amendments_is_not_asked() -> None:
    """Positive control of the short way: one revision of each event leaves `amended` and `revisions` empty, a second one
    notes both."""
    event = visit("e", TEN)
    for sent, rows in (([(event, TEN)], 0), ([(event, TEN), (amended(event, 1), TEN)], 1)):
        made = engine(*sent, partitions=1)
        for leg, name in (("ingest", "amended"), ("measure", "revisions")):
            assert len(list(made.state[leg, 0].stores[name].scan(b"", b"\xff" * 64))) == rows
    assert raw_key(ORG, "app", "e") in dict(made.state["ingest", 0].stores["amended"].scan(b"", b"\xff" * 64))


KNOWN = st.lists(
    st.builds(Known, st.integers(0, 3), st.integers(0, 1), st.integers(0, 9), st.integers(0, 50)),
    max_size=5,
    unique_by=lambda one: one.rank,
)


@given(KNOWN)
def test_differences_add_up_whatever_the_order(known: list[Known]) -> None:
    """Adding revisions one by one, in any order, leads to what all of them together say."""
    expected = {(one.rank, one.k_ms): one.sign for one in changes(known)}
    for order in list(permutations(known))[:24]:
        held: dict[tuple[tuple[int, int], int], int] = {}
        for i, _ in enumerate(order):
            for rank, some in difference(order[:i], order[: i + 1]).items():
                for k_ms, sign in some:
                    held[rank, k_ms] = held.get((rank, k_ms), 0) + sign
        assert {place: sign for place, sign in held.items() if sign} == {
            place: sign for place, sign in netted(known).items() if sign
        }
    assert set(netted(known)) == set(expected)


def netted(known: list[Known]) -> dict[tuple[tuple[int, int], int], int]:
    """What `changes` says, begin and end at one moment taken together."""
    out: dict[tuple[tuple[int, int], int], int] = {}
    for one in changes(known):
        out[one.rank, one.k_ms] = out.get((one.rank, one.k_ms), 0) + one.sign
    return out
