"""The time of a question, against plain computing with zoneinfo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.topology import bases
from milepost.topology.bases import FOREVER, Span, instant, written
from milepost.topology.panes import DAY_MS, PANE_MS, PANES_A_DAY
from milepost.topology.refusals import BadParameter, GrainTooCoarse, UnknownBasis, UnknownZone

NOW = instant("2013-07-15T10:07:03.250Z")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Pacific/Apia",
    "Asia/Kolkata",
)


def panes(span: Span) -> list[int]:
    """Every pane that the reads of a span cover, in their order."""
    out: list[int] = []
    for part in span.ranges:
        width = PANES_A_DAY if part.days else 1
        out.extend(range(part.start * width, part.stop * width))
    return out


def corrected(text: str) -> bases.Moment:
    return bases.moment(None, instant(text), NOW)


def test_the_basis_follows_from_at() -> None:
    """Without basis a question is `latest`, and `corrected` when at is given."""
    assert bases.moment(None, None, NOW).basis == "latest"
    assert corrected("2013-01-01T00:00:00Z").basis == "corrected"


def test_latest_is_exact_and_the_others_are_floored() -> None:
    """`latest` is now to the millisecond; corrected and as_shown use the quarter hour at or before at."""
    assert bases.moment(None, None, NOW).at_ms == NOW
    for basis in ("corrected", "as_shown"):
        assert written(bases.moment(basis, NOW, NOW).at_ms) == "2013-07-15T10:00:00Z"
        assert written(bases.moment(basis, None, NOW).at_ms) == "2013-07-15T10:00:00Z"


def test_as_shown_sees_then_and_corrected_sees_now() -> None:
    """Only as_shown bounds what is known and which identity holds."""
    shown = bases.moment("as_shown", NOW, NOW)
    assert shown.known_until == shown.end and shown.decided_at == shown.at_ms
    for basis, at in (("corrected", NOW), ("latest", None)):
        moment = bases.moment(basis, at, NOW)
        assert moment.known_until is None and moment.decided_at is None


def test_latest_has_no_at() -> None:
    """`latest` with at is refused, an unknown basis too."""
    with pytest.raises(BadParameter):
        bases.moment("latest", NOW, NOW)
    with pytest.raises(UnknownBasis) as refused:
        bases.moment("as-shown", NOW, NOW)
    assert refused.value.guess == "as_shown"


def test_all_of_latest_has_no_end() -> None:
    """The window `all` of `latest` holds future events; every other window ends."""
    latest = bases.moment(None, None, NOW)
    assert not bases.window("all", latest).bounded
    assert bases.window("1h", latest).stop * PANE_MS == instant("2013-07-15T10:15:00Z")
    assert bases.window("all", corrected("2013-01-02T00:00:00Z")) == Span(
        start=0, stop=instant("2013-01-02T00:00:00Z") // PANE_MS
    )


@given(start=st.integers(0, 3000), length=st.integers(0, 1000))
def test_reads_cover_a_span_exactly(start: int, length: int) -> None:
    """Day rows and panes together cover each pane of a span once, in order."""
    assert panes(Span(start=start, stop=start + length)) == list(range(start, start + length))


@given(cuts=st.lists(st.integers(0, 2000), min_size=2, max_size=20, unique=True))
def test_a_cover_covers_all_spans_and_slots_find_them(cuts: list[int]) -> None:
    """The joined reads of neighbouring spans cover them once, and every row lies in one span."""
    cuts.sort()
    spans = [Span(start=a, stop=b) for a, b in pairwise(cuts)]
    covered: list[int] = []
    slots = bases.Slots(spans)
    for part in bases.cover(spans):
        width = PANES_A_DAY if part.days else 1
        for number in range(part.start, part.stop):
            span = spans[slots(number * width)]
            assert span.start <= number * width and (number + 1) * width <= span.stop
            covered.extend(range(number * width, (number + 1) * width))
    assert covered == list(range(cuts[0], cuts[-1]))


def plain_start(unit: str, instant_ms: int, tz: str) -> int:
    """The start of a unit found the slow way: the first quarter hour of the local date that begins it."""
    zone = ZoneInfo(tz)
    local = datetime.fromtimestamp(instant_ms / 1000, zone).date()
    first = {
        "day": local,
        "week": local - timedelta(days=local.weekday()),
        "month": local.replace(day=1),
        "year": local.replace(month=1, day=1),
    }[unit]
    at = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp() * 1000) - 2 * DAY_MS
    while datetime.fromtimestamp(at / 1000, zone).date() < first:
        at += PANE_MS
    return at


@settings(max_examples=150, deadline=None)
@given(
    tz=st.sampled_from(ZONES),
    unit=st.sampled_from(bases.CALENDAR),
    quarter=st.integers(instant("2012-01-01T00:00:00Z") // PANE_MS, instant("2024-01-01T00:00:00Z") // PANE_MS),
)
def test_calendar_units_begin_where_the_zone_says(tz: str, unit: str, quarter: int) -> None:
    """A calendar window begins at the first instant of the local unit that holds the last instant before T."""
    moment = bases.moment(None, quarter * PANE_MS, NOW)
    span = bases.window(unit, moment, tz)
    assert span.stop == quarter
    assert span.start * PANE_MS == plain_start(unit, quarter * PANE_MS - 1, tz)


@pytest.mark.parametrize(
    ("tz", "at", "hours"),
    [
        ("Europe/Berlin", "2013-03-31T22:00:00Z", 23),
        ("Europe/Berlin", "2013-10-27T23:00:00Z", 25),
        ("America/New_York", "2013-03-11T04:00:00Z", 23),
        ("America/New_York", "2013-11-04T05:00:00Z", 25),
        ("America/St_Johns", "2013-03-11T02:30:00Z", 23),
        ("Asia/Kathmandu", "2013-03-30T18:15:00Z", 24),
    ],
)
def test_days_of_a_changing_clock_are_longer_or_shorter(tz: str, at: str, hours: int) -> None:
    """A local day has 23, 24 or 25 hours of panes."""
    span = bases.window("day", corrected(at), tz)
    assert (span.stop - span.start) * PANE_MS == hours * 3_600_000


def test_the_unit_holds_the_last_instant_before_at() -> None:
    """At midnight the day, month and year that just ended are meant."""
    at = corrected("2014-01-01T05:00:00Z")
    assert written(bases.window("year", at, "America/New_York").start * PANE_MS) == "2013-01-01T05:00:00Z"
    assert written(bases.window("week", corrected("2013-01-07T00:00:00Z")).start * PANE_MS) == "2012-12-31T00:00:00Z"


def test_a_date_that_comes_twice_begins_once() -> None:
    """Where the clock went back over midnight, days have no gap and no overlap."""
    edge = instant("2010-11-07T02:31:00Z")  # 00:01 in St. John's, then 23:01 of the day before again
    start = bases.unit_start("day", edge + PANE_MS, "America/St_Johns")
    assert written(start) == "2010-11-07T02:30:00Z"


def test_an_offset_off_the_quarter_hours_is_refused() -> None:
    """Monrovia kept 44 minutes 30 seconds behind until 1972: its days are no sums of panes."""
    with pytest.raises(BadParameter, match="quarter of an hour"):
        bases.window("day", corrected("1971-06-01T00:00:00Z"), "Africa/Monrovia")


@pytest.mark.parametrize(
    "text", ["", "0d", "-1d", "1.5h", "1y", "10m", "3661d", "99999999d", "d", "１d", "7 d", "1d\n"]
)
def test_impossible_windows_are_refused(text: str) -> None:
    """A window that is no multiple of 15 minutes, too long, or no window at all is refused."""
    with pytest.raises(BadParameter):
        bases.window(text, corrected("2013-01-01T00:00:00Z"))


@pytest.mark.parametrize("tz", ["", "Mars/Olympus", "../UTC", "/etc/passwd", "America", "\x00", "x" * 5000, "\ud800"])
def test_unknown_zones_are_refused(tz: str) -> None:
    """A name that is no IANA zone is refused, whatever it looks like."""
    with pytest.raises(UnknownZone):
        bases.window("day", corrected("2013-01-01T00:00:00Z"), tz)


def test_a_grain_that_is_too_coarse_names_the_one_needed() -> None:
    """A window, time or zone finer than the metric's grain is refused with the grain it needs."""
    at = corrected("2013-05-12T06:00:00Z")
    with pytest.raises(GrainTooCoarse, match="needs 1h"):
        bases.window("all", at, grain_ms=DAY_MS)
    with pytest.raises(GrainTooCoarse, match="needs 15m"):
        bases.window("day", corrected("2013-05-12T18:15:00Z"), "Asia/Kathmandu", 3_600_000)
    assert bases.window("28d", corrected("2013-05-12T00:00:00Z"), grain_ms=DAY_MS).bounded
    assert bases.window("2d", bases.moment(None, None, NOW), grain_ms=DAY_MS).stop % PANES_A_DAY == 0


@settings(max_examples=60, deadline=None)
@given(
    tz=st.sampled_from(ZONES),
    every=st.sampled_from(["1h", "6h", "45m", "1d", "3d", "week", "month", "year"]),
    start=st.integers(instant("2011-12-01T00:00:00Z") // DAY_MS, instant("2013-12-31T00:00:00Z") // DAY_MS),
    days=st.integers(1, 60),
)
def test_points_of_a_series_touch(tz: str, every: str, start: int, days: int) -> None:
    """Points follow each other without gap; the first begins at `from`, every one begins before `to`."""
    to_ms = (start + days) * DAY_MS
    points = bases.series(start * DAY_MS, to_ms, every, tz)
    assert points[0].start * PANE_MS == start * DAY_MS
    assert all(a.stop == b.start for a, b in pairwise(points))
    assert points[-1].start * PANE_MS < to_ms <= points[-1].stop * PANE_MS


def test_days_of_a_series_keep_the_wall_clock() -> None:
    """Midnights stay midnights when the clock changes, and hours are elapsed time."""
    points = bases.series(
        instant("2013-03-30T00:00:00+01:00"), instant("2013-04-02T00:00:00+02:00"), "1d", "Europe/Berlin"
    )
    assert [point.stop - point.start for point in points] == [96, 92, 96]
    months = bases.series(instant("2013-01-31T00:00:00Z"), instant("2013-04-01T00:00:00Z"), "month", "UTC")
    assert [written(point.start * PANE_MS)[:10] for point in months] == ["2013-01-31", "2013-02-28", "2013-03-31"]


def test_a_day_that_never_was_is_no_point() -> None:
    """Apia skipped 30 December 2011."""
    points = bases.series(instant("2011-12-28T10:00:00Z"), instant("2012-01-02T10:00:00Z"), "1d", "Pacific/Apia")
    assert all(point.stop > point.start for point in points)
    assert points[-1].stop - points[0].start == sum(point.stop - point.start for point in points)


def test_a_series_is_bounded() -> None:
    """4,000 points are answered, 4,001 are refused."""
    start = instant("2013-01-01T00:00:00Z")
    assert len(bases.series(start, start + 4000 * PANE_MS, "15m", "UTC")) == 4000
    with pytest.raises(BadParameter, match="4000"):
        bases.series(start, start + 4001 * PANE_MS, "15m", "UTC")
    with pytest.raises(BadParameter):
        bases.series(start, FOREVER * PANE_MS, "year", "UTC")


def test_clipped_points_end_at_the_moment() -> None:
    """No event at or behind T counts in a corrected series; `latest` cuts nothing."""
    points = bases.series(instant("2013-01-01T00:00:00Z"), instant("2013-01-04T00:00:00Z"), "1d", "UTC")
    cut = bases.clipped(points, corrected("2013-01-02T06:00:00Z"))
    assert [span.stop - span.start for span in cut] == [96, 24]
    assert bases.clipped(points, bases.moment(None, None, NOW)) == points


def test_times_are_rfc_3339() -> None:
    """A time has a zone; finer digits than the millisecond are cut; a plus that a form decoder ate is understood."""
    assert instant("2013-01-01T00:00:00.123999Z") % 1000 == 123
    assert instant("2013-01-01T00:00Z") == instant("2013-01-01T01:00:00+01:00") == instant("2013-01-01t01:00:00 01:00")
    assert written(instant("2013-01-01T00:00:00.5Z")) == "2013-01-01T00:00:00.500Z"
    for text in (
        "2013-01-01",
        "2013-01-01T00:00:00",
        "2013-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "now",
        "1e9",
        "x" * 999,
    ):
        with pytest.raises(BadParameter):
            instant(text)


def test_panes_are_spans_of_their_own_behind_the_others() -> None:
    """A row of a pane has the number of its pane, behind those of the spans; one alone is not taken for the only one."""
    spans = [Span(start=0, stop=96), Span(start=96, stop=100)]
    slots = bases.Slots(spans, (100, 200))
    assert [slots(one) for one in (0, 95, 96, 99, 100, 101, 199)] == [0, 0, 1, 1, 2, 3, 101]
    assert bases.Slots(spans[:1]).one and not bases.Slots(spans[:1], (96, 97)).one


@pytest.mark.parametrize("unit", ["day", "week", "month", "year"])
def test_the_calendars_last_day_lies_in_a_unit(unit: str) -> None:
    """There is no day after 31 December 9999; the unit that holds it begins as others do."""
    last = bases.instant("9999-12-31T23:59:59Z")
    start = bases.unit_start(unit, last, "UTC")
    assert start <= last < start + 367 * 86_400_000
