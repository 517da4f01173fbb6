"""Whether a source keeps its promises at a moment, from the records one by one.

    stale      the last accepted record is `freshness` old       silent     the last whole window has too few events
    schema     a record of this or the last quarter hour broke   unmatched  too large a share of the last whole window
               the contract's form                                          has no company

Windows are counted from the epoch.  Nothing is said before the minute of the first accepted record behind the
definition that began to promise, but that the form was broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tests.oracle import clock
from tests.oracle.log import Arrival
from tests.oracle.oracle import Oracle

FORM = ("not_decodable", "unknown_schema", "unknown_type", "contract_violation")


def broken(oracle: Oracle, org: str, source: str, at_ms: int, *, until_ms: int, today: bool = False) -> set[str] | None:
    """The promises that are broken at `at_ms`, of what is known before `until_ms`; None: the source is not watched.

    today: what is promised now is what was promised always
    """
    history = [(k_ms, oracle.bundles[bundle].sources.get(source)) for k_ms, bundle in oracle._history().get(org, ())]

    def promised(t_ms: int) -> Mapping[str, Any]:
        past = [one for k_ms, one in history if today or k_ms <= t_ms]
        return past[-1].expect if past and past[-1] is not None else {}

    expect = promised(at_ms)
    if not expect:
        return None
    begins_ms = 0
    if not today:
        begins_ms = min(k_ms for k_ms, _ in history)
        for k_ms, _ in history:
            if k_ms <= at_ms and not promised(k_ms):
                begins_ms = max(begins_ms, min(later for later, _ in history if later > k_ms and promised(later)))
    mine = [one for one in oracle.reading.arrivals if (one.org, one.source) == (org, source)]
    known = [one for one in mine if one.k_ms < until_ms]
    found = set()
    quarter = at_ms // clock.QUARTER
    if any(one.reason in FORM and quarter - one.k_ms // clock.QUARTER < 2 and one.k_ms <= at_ms for one in known):
        found.add("schema")
    live = [one.k_ms for one in known if not one.reason and one.k_ms <= at_ms]
    first = min((k_ms for k_ms in live if k_ms >= begins_ms), default=None)
    if first is None:
        return found
    awaited_ms = first - first % clock.MINUTE
    if "freshness" in expect and at_ms - max(live) >= max(clock.MINUTE, clock.duration(expect["freshness"])):
        found.add("stale")
    volume = expect.get("volume")
    width = clock.duration(volume["per"]) if volume else clock.HOUR
    end = at_ms - at_ms % width
    if end - width >= awaited_ms:
        window = [one for one in known if end - width <= one.k_ms < end]
        if volume and len(_events(window)) < volume["min"]:
            found.add("silent")
        if "unmatched_max" in expect:
            lost = [one for one in window if one.reason == "missing_key" and one.new]
            nobodys = len([one for one in _events(window) if one.unmatched]) + len(lost)
            share = Fraction(expect["unmatched_max"].rstrip("%")) / 100
            if nobodys > share * (len(_events(window)) + len(lost)):
                found.add("unmatched")
    return found


def _events(window: list[Arrival]) -> list[Arrival]:
    return [one for one in window if not one.reason and one.new]
