"""Identity: alternate keys to leaves.  A leaf is a keyed hash, so it needs no look-up and a merge moves nothing.

The contract says where the keys are, in order of priority.  An event is stored under its first company key; two keys of
one entity in one event propose a link, whether or not it is accepted.  An event without a company lies under its own
first key, until a membership attributes it (design §4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from milepost.schemas import keys
from milepost.schemas.records import Identified, Key, Reject, below
from milepost.topology.catalog import Identity, Protection, Source
from milepost.topology.protection import COMPANY, blocked, means_nothing

KEY_BYTES_MAX: Final = 256
KEY_LETTERS_MAX: Final = KEY_BYTES_MAX // 4
"""So many letters fit, whatever they are."""
LEAVES_REMEMBERED_MAX: Final = 200_000


class Leaves:
    """Keys with their leaves, remembered by kind: hashing is pure, so forgetting is harmless; at most 200,000 are kept.

    A value that means nothing (`topology/protection.py`) has no leaf: b""."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[bytes, str, str, bool], dict[str, Key]] = {}
        self._room = LEAVES_REMEMBERED_MAX

    def of(self, org_key: bytes, entity: str, kind: str, label: bool = False) -> dict[str, Key]:
        """What is remembered of a kind: value -> key."""
        name = (org_key, entity, kind, label)
        found = self._kinds.get(name)
        if found is None:
            found = self._kinds[name] = {}
        return found

    def made(self, kept: dict[str, Key], org_key: bytes, entity: str, kind: str, value: str, label: bool) -> Key:
        """The key of a value that `kept`, what `of` answers, does not have yet."""
        if not self._room:
            self._room = LEAVES_REMEMBERED_MAX
            for one in self._kinds.values():
                one.clear()
        self._room -= 1
        leaf = b"" if means_nothing(entity, value) else keys.leaf(org_key, entity, kind, value)
        key = kept[value] = Key(leaf=leaf, entity=entity, kind=kind, value=value, label=label)
        return key

    def __call__(self, org_key: bytes, entity: str, kind: str, value: str) -> bytes:
        kept = self.of(org_key, entity, kind)
        return (kept.get(value) or self.made(kept, org_key, entity, kind, value, False)).leaf


class Identifier:
    """Finds the keys of an organisation's events under a source's contract.  A value that is blocked is no key."""

    def __init__(self, source: Source, org_key: bytes, leaves: Leaves, protection: Protection) -> None:
        self._org_key = org_key
        self._leaves = leaves
        self._protection = protection if protection.blocked or protection.free_mail else None
        self._places = [
            (one, one.path, one.path[0] if len(one.path) == 1 else "", one.entity == COMPANY,
             leaves.of(org_key, one.entity, one.key, one.label))
            for one in source.identities
        ]  # fmt: skip

    def __call__(self, data: Mapping[str, Any]) -> Identified | Reject:
        found: list[Key] = []
        company: Key | None = None
        members: list[tuple[str, bytes]] = []
        edges: list[tuple[Key, Key]] = []
        for identity, path, name, of_company, kept in self._places:
            value = data.get(name) if name else below(data, path)
            if type(value) is not str or not 0 < len(value) <= KEY_LETTERS_MAX:
                value = _checked(value, identity)
                if isinstance(value, Reject):
                    return value
                if value is None:
                    continue
            key = kept.get(value) or self._made(kept, identity, value)
            leaf = key.leaf
            if not leaf or (
                self._protection is not None and blocked(self._protection, identity.entity, identity.key, value)
            ):
                if identity.required:
                    return Reject("missing_key", f"the required key {identity.entity}/{identity.key} means nothing")
                continue
            found.append(key)
            if not of_company:
                members.append((identity.entity, leaf))
            elif company is None:
                company = key
            elif company.leaf != leaf:
                edges.append((company, key))
        if len(members) > 1:
            edges += _between(found)
        if not found:
            return Reject("missing_key", "none of the keys that the contract names is in the event")
        return Identified(
            leaf=(company or found[0]).leaf, keys=tuple(found), members=tuple(members), edges=tuple(edges)
        )

    def _made(self, kept: dict[str, Key], identity: Identity, value: str) -> Key:
        return self._leaves.made(kept, self._org_key, identity.entity, identity.key, value, identity.label)


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
