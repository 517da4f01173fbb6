"""Identity: alternate keys to leaves.  A leaf is a keyed hash, so it needs no look-up and a merge moves nothing.

The contract says where the keys are, in order of priority.  An event is stored under its first company key; two keys of
one entity in one event propose a link, whether or not it is accepted.  An event without a company lies under its own
first key, until a membership attributes it (design §4).
"""

from __future__ import annotations

from typing import Any, Final

from milepost.schemas import keys
from milepost.schemas.records import Event, Identified, Key, Reject, below
from milepost.topology.catalog import Identity, Protection, Source
from milepost.topology.protection import COMPANY, blocked, means_nothing

KEY_BYTES_MAX: Final = 256
KEY_LETTERS_MAX: Final = KEY_BYTES_MAX // 4
"""So many letters fit, whatever they are."""
LEAVES_REMEMBERED_MAX: Final = 200_000


class Leaves:
    """Leaves remembered: hashing is pure, so forgetting is harmless; at most 200,000 are kept.

    A value that means nothing (`topology/protection.py`) has no leaf: b""."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, str, str, str], bytes] = {}

    def __call__(self, org_key: bytes, entity: str, kind: str, value: str) -> bytes:
        name = (org_key, entity, kind, value)
        leaf = self._known.get(name)
        if leaf is None:
            if len(self._known) >= LEAVES_REMEMBERED_MAX:
                self._known.clear()
            leaf = b"" if means_nothing(entity, value) else keys.leaf(org_key, entity, kind, value)
            self._known[name] = leaf
        return leaf


def identify(
    event: Event, source: Source, org_key: bytes, leaves: Leaves, protection: Protection
) -> Identified | Reject:
    """The keys of an event under its source's contract.  A value that is blocked is no key."""
    protected = bool(protection.blocked or protection.free_mail)
    found: list[Key] = []
    company: Key | None = None
    members: list[tuple[str, bytes]] = []
    edges: list[tuple[Key, Key]] = []
    for identity in source.identities:
        value = event.data.get(identity.path[0]) if len(identity.path) == 1 else below(event.data, identity.path)
        if type(value) is not str or not 0 < len(value) <= KEY_LETTERS_MAX:
            value = _checked(value, identity)
            if isinstance(value, Reject):
                return value
            if value is None:
                continue
        leaf = leaves(org_key, identity.entity, identity.key, value)
        if not leaf or (protected and blocked(protection, identity.entity, identity.key, value)):
            if identity.required:
                return Reject("missing_key", f"the required key {identity.entity}/{identity.key} means nothing")
            continue
        key = Key(leaf=leaf, entity=identity.entity, kind=identity.key, value=value, label=identity.label)
        found.append(key)
        if identity.entity != COMPANY:
            members.append((identity.entity, leaf))
        elif company is None:
            company = key
        elif company.leaf != leaf:
            edges.append((company, key))
    if len(members) > 1:
        edges += _between(found)
    if not found:
        return Reject("missing_key", "none of the keys that the contract names is in the event")
    return Identified(leaf=(company or found[0]).leaf, keys=tuple(found), members=tuple(members), edges=tuple(edges))


def _between(found: list[Key]) -> list[tuple[Key, Key]]:
    """The links that an event proposes of entities that are no companies: the first key of each with its others."""
    first: dict[str, Key] = {}
    return [
        (first[key.entity], key)
        for key in found
        if key.entity != COMPANY and first.setdefault(key.entity, key).leaf != key.leaf
    ]


def _checked(at: Any, identity: Identity) -> str | Reject | None:
    if at is None or at == "":
        if identity.required:
            return Reject("missing_key", f"the required key {identity.entity}/{identity.key} is not in the event")
        return None
    if type(at) is str:
        if len(at) > KEY_LETTERS_MAX and len(at.encode()) > KEY_BYTES_MAX:
            return Reject(
                "contract_violation", f"{identity.entity}/{identity.key} is longer than {KEY_BYTES_MAX} bytes"
            )
        return at
    if isinstance(at, int) and not isinstance(at, bool):
        return str(at)
    return Reject(
        "contract_violation",
        f"{identity.entity}/{identity.key} is a {type(at).__name__}; text or a whole number is expected",
    )
