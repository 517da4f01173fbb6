"""By hand: what a person decides about identity, says, or writes into a record, as raw events of ours.

    milepost.link       {entity, keys: [key:value, ...], by}           the keys are one thing
    milepost.unlink     {entity, keys: [key:value, ...], by}           the keys leave what they are part of
    milepost.membership {entity, member: key:value, company: key:value, from, to, by}
    milepost.record     {record, id, op, fields: JSON object, by}      a change of a record; a restore is one, too
    milepost.source_complete {source, until, by}                       the source has sent everything up to then
    milepost.action     {plan, milestone, action, company, done, by}   an action is ticked or unticked (acts.py)
    milepost.source_stale …     {source, holds, since}                 what the watch says (breach_records.py)
    milepost.dispute_accepted {plan, milestone, company, dispute, by}  what was corrected when it was final holds

They come under the source `milepost`, of any organisation, under the contracts of this module; so known time, dedupe,
replay and explanation are those of every event.  A link is not amended: its opposite is decided.  A membership is: the
same id with a higher revision, or void; so are a tick and an acceptance (acceptances.py).  That a source is complete is
not taken back: `until` lies in the past, and what comes after all is late.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from milepost.schemas.contracts import Contract, compile_contract
from milepost.schemas.errors import ContractError
from milepost.schemas.keys import LEAF_BYTES, PART_BYTES_MAX, raw_key
from milepost.schemas.keys import leaf as keyed
from milepost.schemas.record_change import NONE, OPS, record_key
from milepost.schemas.records import Event, Identified, Key, Reject
from milepost.schemas.serde import wire
from milepost.schemas.times import time_ms
from milepost.topology import acts, breach_records
from milepost.topology.bases import written
from milepost.topology.definitions import Catalog, Source
from milepost.topology.protection import COMPANY, blocked
from milepost.topology.state import Output

NAME: Final = "milepost"
LINK: Final = "milepost.link"
UNLINK: Final = "milepost.unlink"
MEMBERSHIP: Final = "milepost.membership"
RECORD: Final = "milepost.record"
COMPLETE: Final = "milepost.source_complete"
ACCEPTED: Final = "milepost.dispute_accepted"
KEYS_MAX: Final = 1_000
"""Keys that one decision names at most."""
BY_MAX: Final = 256
FIELDS_MAX: Final = 256
"""Fields that one change of a record names at most, as in definitions."""
_KEY_BYTES_MAX: Final = 256
_DISPUTE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_ENTITY: Final = '{"name": "entity", "type": "string", "default": "company"}'
_BY: Final = '{"name": "by", "type": ["null", "string"], "default": null}'
_KEYS: Final = '{"name": "keys", "type": {"type": "array", "items": "string"}}'
_MEMBER: Final = '{"name": "member", "type": "string"}, {"name": "company", "type": "string"}'
_RECORD: Final = (
    '{"name": "record", "type": "string"}, {"name": "id", "type": "string"}, {"name": "op", "type": "string"},'
    '{"name": "fields", "type": "string", "default": "{}"}'
)
_SAID_OF: Final = '{"name": "source", "type": "string"}, {"name": "until", "type": "string"}'
_DISPUTE: Final = ", ".join(
    f'{{"name": "{one}", "type": "string"}}' for one in ("plan", "milestone", "company", "dispute")
)
_UNTIL: Final = (
    '{"name": "from", "type": ["null", "string"], "default": null},'
    '{"name": "to", "type": ["null", "string"], "default": null}'
)


def _contract(name: str, *fields: str) -> Contract:
    text = f'{{"type": "record", "name": "{name}", "fields": [{", ".join(fields)}]}}'
    return compile_contract(name, text.encode())


SOURCE: Final = Source(
    name=NAME,
    owner="",
    types={
        acts.ACTION: acts.CONTRACT,
        LINK: _contract("Linking", _ENTITY, _KEYS, _BY),
        UNLINK: _contract("Unlinking", _ENTITY, _KEYS, _BY),
        RECORD: _contract("Recording", _RECORD, _BY),
        ACCEPTED: _contract("Accepting", _DISPUTE, _BY),
        COMPLETE: _contract("Completing", _SAID_OF, _BY),
        **breach_records.TYPES,
        MEMBERSHIP: _contract("Belonging", _ENTITY.replace("company", "person"), _MEMBER, _UNTIL, _BY),
    },
    identities=(),
    pii=(),
    volatile=(),
    future_skew_ms=600_000,
)
"""The source of decisions; no bundle declares it."""

_NOBODY: Final = Identified(leaf=bytes(LEAF_BYTES), keys=(), members=(), edges=())
Leaf = Callable[[bytes, str, str, str], bytes]


def event(org: str, what: str, data: Mapping[str, Any], id: str, t_ms: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """The raw event of what a person decided or said: `milepost.WHAT`.  more: revision, void"""
    named = {"org": org, "source": NAME, "id": id, "type": f"milepost.{what}"}
    return {**named, "time": written(t_ms), "data": data, **more}


def identify(event: Event, k_ms: int, catalog: Catalog, org_key: bytes, leaf: Leaf) -> Identified | Reject:
    """The keys that a decision names, as of known time `k_ms`; what is said of a source names none."""
    try:
        if len(event.data["by"] or "") > BY_MAX:
            raise ContractError("contract_violation", f"by has at most {BY_MAX} letters")
        if event.type == RECORD:
            name, id = event.data["record"], event.data["id"]
            if event.data["op"] not in OPS - {NONE}:
                raise ContractError("contract_violation", "op is upsert, create, update, patch or delete")
            if name not in catalog.records:
                raise ContractError("contract_violation", "the definitions in force have no records of that type")
            _id_bytes(id)
            fields_of(event)
            return Identified(leaf=record_key(event.org, name, id), keys=(), members=(), edges=())
        if event.type == MEMBERSHIP:
            member = _key(event.data["entity"], event.data["member"], catalog, org_key, leaf)
            company = _key(COMPANY, event.data["company"], catalog, org_key, leaf)
            if member.entity == COMPANY:
                raise ContractError("contract_violation", "a member is no company: two companies are linked")
            _validity(event.data)
            return Identified(leaf=company.leaf, keys=(member, company), members=(), edges=())
        if event.type == acts.ACTION:
            company = _key(COMPANY, event.data["company"], catalog, org_key, leaf)
            if not event.void:
                acts.check(catalog, event.data["plan"], event.data["milestone"], event.data["action"])
            return Identified(leaf=company.leaf, keys=(company,), members=(), edges=())
        if event.type == ACCEPTED:
            company = _key(COMPANY, event.data["company"], catalog, org_key, leaf)
            dispute_id(event.data["dispute"])
            if not event.void:
                _agreed(catalog, event.data["plan"], event.data["milestone"])
            return Identified(leaf=company.leaf, keys=(company,), members=(), edges=())
        if event.revision or event.repair or event.void:
            raise ContractError("contract_violation", f"a {event.type} is not amended; decide the opposite")
        if event.type in breach_records.TYPES:
            key = _source(breach_records.named(event.data), org_key, leaf)
            return Identified(leaf=key.leaf, keys=(key,), members=(), edges=())
        if event.type == COMPLETE:
            complete_until(event.data["source"], event.data["until"], k_ms, catalog)
            return _NOBODY
        named, least = event.data["keys"], 1 if event.type == UNLINK else 2
        if not least <= len(named) <= KEYS_MAX:
            raise ContractError("contract_violation", f"{least} to {KEYS_MAX} keys are expected, {len(named)} came")
        found = {key.leaf: key for one in named if (key := _key(event.data["entity"], one, catalog, org_key, leaf))}
        if len(found) < least:
            raise ContractError("contract_violation", f"{least} different keys are expected")
    except ContractError as error:
        return Reject(error.reason, error.detail)
    keys = tuple(found.values())
    return Identified(leaf=keys[0].leaf, keys=keys, members=(), edges=())


def fields_of(event: Event) -> bytes:
    """What a `milepost.record` writes, as a JSON object.  ContractError when it is none."""
    try:
        found = orjson.loads(event.data["fields"])
    except orjson.JSONDecodeError as error:
        raise ContractError("contract_violation", "fields is a JSON object, as text") from error
    if type(found) is not dict or len(found) > FIELDS_MAX:
        raise ContractError("contract_violation", f"fields is a JSON object of at most {FIELDS_MAX} fields")
    return orjson.dumps(found)


def complete_until(source: str, until: str, k_ms: int, catalog: Catalog) -> int:
    """Up to when a source is said to be complete, ms.  Raises ContractError when nobody can know that at `k_ms`."""
    known = catalog.sources.get(source)
    if known is None:
        raise ContractError("unknown_source", "the definitions in force know no source of the name in data.source")
    try:
        until_ms = time_ms(until)
    except ContractError as error:
        raise ContractError(error.reason, f"data.until: {error.detail}") from error
    if until_ms > k_ms + known.future_skew_ms:
        ahead = f"data.until lies {until_ms - k_ms} ms ahead of what is known"
        raise ContractError("future_event", f"{ahead}; {known.future_skew_ms} ms are allowed")
    return until_ms


def dispute_id(text: str) -> bytes:
    """The id of a dispute that is written as 32 hexadecimal digits.  Raises ContractError."""
    if _DISPUTE_ID.fullmatch(text) is None:
        raise ContractError("contract_violation", "the id of a dispute has 32 hexadecimal digits, in lower case")
    return bytes.fromhex(text)


def _agreed(catalog: Catalog, plan: str, milestone: str) -> None:
    known = catalog.plans.get(plan)
    if known is None or not known.org or milestone not in known.milestones:
        raise ContractError("contract_violation", "no plan on a bridge has the milestone that data names")


def told(
    event: Event, who: Identified, rank: Mapping[tuple[str, str], int], k_ms: int, partition: int, offset: int
) -> list[Output]:
    """The records on `identity-links`, which every worker follows: one a raw key, never overwritten."""
    if event.type in (acts.ACTION, RECORD, *breach_records.TYPES):
        return []  # its signal, or its change, says it all
    if event.type not in (COMPLETE, ACCEPTED):
        return [_decision(event, who, rank, k_ms, partition, offset)]
    key = raw_key(event.org, event.source, event.id, event.revision, event.repair)
    fields = {
        "org": event.org, "by": event.data["by"] or "", "k_ms": k_ms, "raw_partition": partition, "raw_offset": offset,
    }  # fmt: skip
    if event.type == COMPLETE:
        fields |= {"source": event.data["source"], "until_ms": time_ms(event.data["until"])}
        return [Output(topic="identity-links", partition=0, key=key, value=wire("Completion").encode(fields))]
    fields |= {
        "id": raw_key(event.org, event.source, event.id), "revision": event.revision, "repair": event.repair,
        "void": event.void, "dispute": dispute_id(event.data["dispute"]),
    }  # fmt: skip
    return [Output(topic="identity-links", partition=0, key=key, value=wire("Acceptance").encode(fields))]


def _decision(
    event: Event, who: Identified, rank: Mapping[tuple[str, str], int], k_ms: int, partition: int, offset: int
) -> Output:
    """The record of a decision about identity."""
    key = raw_key(event.org, event.source, event.id, event.revision, event.repair)
    from_ms, to_ms = _validity(event.data) if event.type == MEMBERSHIP else (None, None)
    fields = {
        "org": event.org, "what": event.type.removeprefix("milepost."),
        "id": raw_key(event.org, event.source, event.id),
        "revision": event.revision, "repair": event.repair, "void": event.void,
        "keys": [
            {"leaf": one.leaf, "entity": one.entity, "kind": one.kind, "rank": rank[one.entity, one.kind]}
            for one in who.keys
        ],
        "from_ms": from_ms, "to_ms": to_ms, "by": event.data["by"] or "", "k_ms": k_ms, "raw_partition": partition,
        "raw_offset": offset,
    }  # fmt: skip
    return Output(topic="identity-links", partition=0, key=key, value=wire("Decision").encode(fields))


def _id_bytes(id: str) -> None:
    try:
        size = len(id.encode())
    except UnicodeEncodeError as error:
        raise ContractError("contract_violation", "the id of a record is valid Unicode") from error
    if not 0 < size <= PART_BYTES_MAX:
        raise ContractError("contract_violation", f"the id of a record has 1 to {PART_BYTES_MAX} bytes")


def _key(entity: str, text: str, catalog: Catalog, org_key: bytes, leaf: Leaf) -> Key:
    kind, colon, value = text.partition(":")
    if not colon:
        raise ContractError("contract_violation", "a key is written key:value")
    if (entity, kind) not in catalog.key_rank:
        raise ContractError("contract_violation", "the definitions in force have no key of that kind")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ContractError("contract_violation", "a key's value is valid Unicode") from error
    if not 0 < size <= _KEY_BYTES_MAX:
        raise ContractError("contract_violation", f"a key's value has 1 to {_KEY_BYTES_MAX} bytes")
    found = leaf(org_key, entity, kind, value)
    if not found or blocked(catalog.protection, entity, kind, value):
        raise ContractError("contract_violation", "a key's value is blocked: it means nothing")
    identities = (one for source in catalog.sources.values() for one in source.identities)
    label = any(one.label for one in identities if (one.entity, one.key) == (entity, kind))
    return Key(leaf=found, entity=entity, kind=kind, value=value, label=label)


def _source(name: str, org_key: bytes, leaf: Leaf) -> Key:
    """A source as a thing that events are about.  A name that means nothing elsewhere is a source's all the same."""
    entity, kind = breach_records.ENTITY, breach_records.KEY
    found = leaf(org_key, entity, kind, name) or keyed(org_key, entity, kind, name)
    return Key(leaf=found, entity=entity, kind=kind, value=name, label=False)


def _validity(data: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """from and to of a membership, ms.  ContractError when they do not hold."""
    from_ms, to_ms = (None if data[name] is None else time_ms(data[name]) for name in ("from", "to"))
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise ContractError("contract_violation", "from lies before to")
    return from_ms, to_ms
