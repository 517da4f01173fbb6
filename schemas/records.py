"""Records: the typed values that travel between stages, and the fates a record can have.

A stage answers its own value or `Reject`; a fate is a value, never an exception that leaves the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from milepost.schemas.errors import Reason


class Reject(msgspec.Struct, frozen=True):
    """The record breaks its contract and becomes a dead letter.  `detail` holds no values of `data`."""

    reason: Reason
    detail: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A raw event as its source sent it, before the contract is looked at.  `time` is RFC 3339 with a zone.

    specversion, datacontenttype: of a CloudEvent, whatever they hold; an event that is none has no specversion
    """

    org: str
    source: str
    id: str
    type: str
    time: str
    data: dict[str, Any]
    revision: int = 0
    void: bool = False
    repair: int = 0
    specversion: Any = None
    datacontenttype: Any = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event under its contract.  body: BLAKE2b-64 of the canonical decoded form (semantics S1).

    revision, repair: which version of the event this is; the higher pair counts.  void: it takes the event back
    """

    org: str
    source: str
    id: str
    type: str
    time: str
    t_ms: int
    data: dict[str, Any]
    body: bytes
    revision: int = 0
    repair: int = 0
    void: bool = False


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An alternate key of an entity and its leaf."""

    leaf: bytes
    entity: str
    kind: str
    value: str
    label: bool


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """Who an event is about.

    leaf:    where its signals are kept: the company key of the highest priority, else the first key there is
    keys:    every alternate key it names, in the order of the contract
    members: (entity, leaf) of the keys that are not companies
    edges:   pairs of keys that it proposes to be the same thing
    """

    leaf: bytes
    keys: tuple[Key, ...]
    members: tuple[tuple[str, bytes], ...]
    edges: tuple[tuple[Key, Key], ...]


def below(data: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What lies at a path of an event's data; None where there is nothing."""
    at: Any = data
    for name in path:
        at = at.get(name) if type(at) is dict else None
    return at
