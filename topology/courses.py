"""Courses: what is the same for all events of one type of a source under one bundle, looked up and made once.

    (bundle, organisation, source, type) -> contract, how keys are found, how rules judge

An event's own work is then a few calls, without a look-up by name in each stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from milepost.schemas.records import Envelope, Event, Identified, Reject
from milepost.topology import by_hand, decode, identity, quality, signals
from milepost.topology.catalog import Catalog, Contract, Source
from milepost.topology.decisions import Decisions

REMEMBERED_MAX: Final = 10_000


class Course(NamedTuple):
    """See the module.

    sent:    (organisation, source)
    by_hand: it is a decision by hand, whose source no bundle declares
    watched: what comes of its source is counted (quality.py)
    """

    catalog: Catalog
    source: Source
    contract: Contract
    sent: tuple[str, str]
    by_hand: bool
    watched: bool
    identify: identity.Identifier
    judge: signals.Judge


class Courses:
    """The courses of a leg, remembered; `org_keys` gives each organisation's key."""

    def __init__(self, decisions: Decisions, org_keys: Mapping[str, bytes]) -> None:
        self._decisions = decisions
        self._org_keys = org_keys
        self._leaves = identity.Leaves()
        self._known: dict[tuple[bytes, str, str, str], Course] = {}

    def of(self, bundle: bytes, found: Envelope) -> Course | Reject:
        """The course of an event under a bundle, or why there is none."""
        name = (bundle, found.org, found.source, found.type)
        course = self._known.get(name)
        return self._made(name, found) if course is None else course

    def who(self, event: Event, k_ms: int, course: Course) -> Identified | Reject:
        """Who an event is about, as of known time `k_ms`."""
        if course.by_hand:
            return by_hand.identify(event, k_ms, course.catalog, self._org_keys[event.org], self._leaves)
        return course.identify(event.data)

    def _made(self, name: tuple[bytes, str, str, str], found: Envelope) -> Course | Reject:
        catalog = self._decisions.catalogs.get(name[0])
        under = decode.contract(found, catalog)
        if isinstance(under, Reject):
            return under
        assert catalog is not None
        source, contract = under
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        course = self._known[name] = Course(
            catalog=catalog,
            source=source,
            contract=contract,
            sent=(found.org, found.source),
            by_hand=found.source not in catalog.sources,
            watched=quality.watched(source),
            identify=identity.Identifier(source, self._org_keys[found.org], self._leaves, catalog.protection),
            judge=signals.judge_of(catalog, found.type),
        )
        return course
