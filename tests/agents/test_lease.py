"""The lease: a worker believes in its partitions for as long as the broker certainly does, and no longer."""

from __future__ import annotations

import asyncio

from milepost.agents.lease import MARGIN_S, Lease


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Coordinator:
    """aiokafka's, as far as the lease sees it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.yes = True

    async def _do_heartbeat(self) -> bool:
        self.clock.now += 2.0  # the answer takes its time
        return self.yes


def test_a_lease_ends_with_the_session() -> None:
    """Counted from when the worker asked for partitions, not from when it was told."""
    clock = Clock()
    lease = Lease(6.0, clock)
    assert not lease.held and lease.age_ms is None
    lease.joining()
    clock.now += 3.0
    lease.joined()
    assert lease.held and lease.age_ms == 3000
    clock.now += 3.0 - MARGIN_S
    assert not lease.held


def test_a_heartbeat_renews_from_when_it_was_sent() -> None:
    """What is answered late counts from its sending; a refusal renews nothing."""
    clock = Clock()
    lease, coordinator = Lease(6.0, clock), Coordinator(clock)
    lease.watch(coordinator)
    lease.watch(coordinator)  # once is enough
    assert asyncio.run(coordinator._do_heartbeat())
    assert lease.age_ms == 2000
    coordinator.yes = False
    assert not asyncio.run(coordinator._do_heartbeat())
    assert lease.age_ms == 4000


def test_a_process_that_was_stopped_has_no_lease() -> None:
    """Stopped for longer than the session and continued: the clock went on, the heartbeats did not."""
    clock = Clock()
    lease = Lease(6.0, clock)
    lease.renewed(clock.now)
    clock.now += 60.0
    assert not lease.held and lease.age_ms == 60_000


def test_an_older_heartbeat_takes_nothing_back() -> None:
    """Answers may come in any order."""
    clock = Clock()
    lease = Lease(6.0, clock)
    lease.renewed(clock.now)
    lease.renewed(clock.now - 5.0)
    assert lease.age_ms == 0
