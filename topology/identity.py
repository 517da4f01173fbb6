"""Identity: alternate keys to leaves.  A leaf is a keyed hash, so it needs no look-up and a merge moves nothing.

The contract says where the keys are, in order of priority.  An event is stored under its first company key; two company
keys in one event propose a link, whether or not it is accepted.  An event without a company lies under its own first
key, until a membership attributes it (design §4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from milepost.schemas import keys
from milepost.schemas.records import Event, Identified, Key, Reject
from milepost.topology.catalog import Identity, Source

COMPANY: Final = "company"
KEY_BYTES_MAX: Final = 256
LEAVES_REMEMBERED_MAX: Final = 200_000


class Leaves:
    """Leaves remembered: hashing is pure, so forgetting is harmless; at most 200,000 are kept."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, str, str, str], bytes] = {}

    def __call__(self, org_key: bytes, entity: str, kind: str, value: str) -> bytes:
        name = (org_key, entity, kind, value)
        leaf = self._known.get(name)
        if leaf is None:
            if len(self._known) >= LEAVES_REMEMBERED_MAX:
                self._known.clear()
            leaf = self._known[name] = keys.leaf(org_key, entity, kind, value)
        return leaf


def identify(event: Event, source: Source, org_key: bytes, leaves: Leaves) -> Identified | Reject:
    """The keys of an event under its source's contract."""
    found: list[Key] = []
    for identity in source.identities:
        value = _value(event.data, identity)
        if isinstance(value, Reject):
            return value
        if value is not None:
            leaf = leaves(org_key, identity.entity, identity.key, value)
            found.append(Key(leaf=leaf, entity=identity.entity, kind=identity.key, value=value, label=identity.label))
    if not found:
        return Reject("missing_key", "none of the keys that the contract names is in the event")
    companies = [key for key in found if key.entity == COMPANY]
    return Identified(
        leaf=(companies or found)[0].leaf,
        keys=tuple(found),
        members=tuple((key.entity, key.leaf) for key in found if key.entity != COMPANY),
        edges=tuple((companies[0], other) for other in companies[1:] if other.leaf != companies[0].leaf),
    )


def _value(data: Mapping[str, Any], identity: Identity) -> str | Reject | None:
    at: Any = data
    for name in identity.path:
        at = at.get(name) if type(at) is dict else None
    if at is None or at == "":
        if identity.required:
            return Reject("missing_key", f"the required key {identity.entity}/{identity.key} is not in the event")
        return None
    if type(at) is str:
        if len(at) * 4 > KEY_BYTES_MAX and len(at.encode()) > KEY_BYTES_MAX:
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
