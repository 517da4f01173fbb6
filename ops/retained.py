"""Retained: which records of the raw log a new contract could not read, although the one in force does.

The log is read from its beginning, for `READ_S_MAX` seconds at most; what was not looked at is said.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from milepost.ops.reader import partition_count, plain_consumer, read_to_end
from milepost.ops.settings import Settings
from milepost.schemas.contracts import Contract, compile_contract
from milepost.schemas.errors import ContractError
from milepost.schemas.framing import Table
from milepost.schemas.records import Envelope
from milepost.topology import decode
from milepost.topology.catalog import Catalog

READ_S_MAX: Final = 60.0
Check = Callable[[dict[str, Any]], dict[str, Any]]


def unread(
    settings: Settings, org: str, schemas: Sequence[str], before: Catalog, files: Mapping[str, bytes], table: Table
) -> dict[str, str]:
    """Contract -> how many retained records of it could not be read, in words, where there are any.

    schemas: contracts that are to change;  before: what is in force;  files: those of the new bundle
    """
    now = {name: compile_contract(name, files[f"schemas/{name}.avsc"]) for name in schemas}
    under: dict[tuple[str, str], tuple[Contract, Contract]] = {
        (source.name, type): (contract, now[contract.schema_name])
        for source in before.sources.values()
        for type, contract in source.types.items()
        if contract.schema_name in now
    }
    looked, broken, first = Counter[str](), Counter[str](), dict[str, str]()
    whole = True
    until = time.monotonic() + READ_S_MAX
    consumer = plain_consumer(settings.bootstrap)
    try:
        for message in read_to_end(consumer, settings.topic("raw-events"), partition_count(settings, "raw-events")):
            if time.monotonic() > until:
                whole = False
                break
            found = decode.read(message.value() or b"", table)
            pair = under.get((found.source, found.type)) if isinstance(found, Envelope) and found.org == org else None
            if pair is None or not isinstance(found, Envelope) or not _held(pair[0].check, found.data):
                continue
            name = pair[0].schema_name
            looked[name] += 1
            if not _held(pair[1].check, found.data):
                broken[name] += 1
                first.setdefault(name, f"raw-events/{message.partition()}@{message.offset()}")
    finally:
        consumer.close()
    reach = "" if whole else f" (looked at for {READ_S_MAX:.0f} s, not to the end)"
    return {
        name: f"{broken[name]:,} of {looked[name]:,} retained records could not be read{reach}, the first {first[name]}"
        for name in first
    }


def _held(check: Check, data: dict[str, Any]) -> bool:
    try:
        check(data)
    except ContractError:
        return False
    return True
