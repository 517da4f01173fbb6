"""What was shown then, through HTTP: a late arrival changes what is known now and nothing that was shown (semantics S1)."""

from __future__ import annotations

from typing import Any

from milepost.ops.flights import FlightEvent
from milepost.ops.settings import Settings
from tests.support.workers import Deployment

TEN = 1_370_080_800_000  # 2013-06-01T10:00:00Z
MINUTE = 60_000


def departure(id: str) -> FlightEvent:
    data = {
        "carrier": "ZZ",
        "flight": 1,
        "tailnum": None,
        "origin": "EWR",
        "dest": "BOS",
        "dep_delay": 2.0,
        "distance": 200.0,
    }
    return FlightEvent(source="flights", id=id, type="flight.departed", t_ms=TEN, data=data)


def test_a_late_arrival_does_not_move_what_was_shown(settings: Settings) -> None:
    """e1 happens at 10:00 and is known at 10:01; then e2, of 10:00 too, is known at 12:00.  As shown at 11:00 there is
    one departure before and after; corrected at 11:00 goes from one to two; as shown at 12:15 there are two."""

    def asked(deployment: Deployment, basis: str, at: str) -> Any:
        with deployment.worker.client() as client:
            return client.value("departures", at=f"2013-06-01T{at}:00Z", basis=basis, company="carrier_code:ZZ")

    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.start()
        one, two = departure("e1"), departure("e2")
        deployment.send([one], shift=lambda event: TEN + MINUTE - event.k_ms)
        deployment.settle()
        before = {basis: asked(deployment, basis, "11:00")["value"] for basis in ("as_shown", "corrected")}
        assert before == {"as_shown": 1, "corrected": 1}
        deployment.send([two], shift=lambda event: TEN + 120 * MINUTE - event.k_ms)
        deployment.settle()
        assert asked(deployment, "as_shown", "11:00")["value"] == 1
        assert asked(deployment, "corrected", "11:00")["value"] == 2
        assert asked(deployment, "as_shown", "12:00")["value"] == 1, "the bucket of 12:00 has not ended"
        assert asked(deployment, "as_shown", "12:15")["value"] == 2
        shown = asked(deployment, "as_shown", "12:20")
        assert shown["at"].startswith("2013-06-01T12:15") and shown["definition"] == "backfilled"
