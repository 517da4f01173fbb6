"""Registering: contracts at a schema registry, each under a subject that is FULL_TRANSITIVE.

    ours     milepost.NAME, and raw-events-value for RawEvent: where a serializer looks for what it may send
    a bundle's   ORG.NAME

All are checked before any is registered, so a bundle that is refused leaves nothing behind.  What the registry says of
their ids goes into the log (`ops/apply.py`): the registry is asked here and nowhere else, so nothing but an apply waits
for it, and a log is read again by what it says itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from milepost.ops.registry_client import Incompatible, RegistryClient
from milepost.ops.settings import Settings
from milepost.schemas import framing
from milepost.schemas.errors import ContractError, DeclarationError
from milepost.schemas.evolution import breaks
from milepost.schemas.framing import RegisteredSchema, Table
from milepost.schemas.serde import NAMES, wire


def subjects(settings: Settings, org: str, files: Mapping[str, bytes]) -> dict[str, str]:
    """Subject -> schema, of our contracts and of a bundle's.  The namespace stands before each."""
    found = {event_subject(settings): json.dumps(wire("RawEvent").json)}
    for name in NAMES:
        if name != "RawEvent":
            found[settings.topic(f"milepost.{name}")] = json.dumps(wire(name).json)
    for path, text in files.items():
        if path.startswith("schemas/"):
            name = path.removeprefix("schemas/").removesuffix(".avsc")
            found[settings.topic(f"{org}.{name}")] = text.decode()
    return found


def event_subject(settings: Settings) -> str:
    """Where registries keep what may be sent to the raw log."""
    return f"{settings.topic('raw-events')}-value"


def check(settings: Settings, org: str, files: Mapping[str, bytes]) -> None:
    """Raise Incompatible where the registry would refuse a contract; nothing is registered."""
    with RegistryClient(settings.registry_url) as client:
        _check(client, subjects(settings, org, files))


def register(settings: Settings, org: str, files: Mapping[str, bytes]) -> list[RegisteredSchema]:
    """Register all contracts; answers what they are known as, and every version of an event's schema.

    Raises Incompatible or StoreError, with nothing registered that was not there, or DeclarationError."""
    wanted = subjects(settings, org, files)
    with RegistryClient(settings.registry_url) as client:
        there = _check(client, wanted)
        found = []
        for subject, text in wanted.items():
            client.register(subject, text)
            if subject not in there:
                client.guard(subject)
            found.append(client.registered(subject, text))
        found += [one for one in client.versions(event_subject(settings)) if not framing.event_fault(one.text)]
    return found


def joined(known: Table, more: Sequence[RegisteredSchema]) -> Table:
    """What the log knows and what the registry says.  DeclarationError where they contradict each other."""
    try:
        return known.joined(more)
    except ContractError as error:
        raise DeclarationError(
            f"the schema registry does not go with the log: {error.detail}; fix: bring back the registry that was used "
            "before, or its data; without MILEPOST_REGISTRY nothing is registered, and ids that the log knows are read"
        ) from error


def _why(client: RegistryClient, subject: str, text: str) -> tuple[str, ...]:
    """Why a registry refuses a schema, where it does not say so itself: what it breaks of the versions there."""
    return tuple(
        f"{'.'.join(one.path) or 'the record'}: {one.said} (version {version.version}, {one.reading})"
        for version in reversed(client.versions(subject))
        for one in breaks(version.text, text)
    )


def _check(client: RegistryClient, wanted: Mapping[str, str]) -> set[str]:
    """Raise Incompatible with all that is refused; answers which subjects are there."""
    there = set(client.subjects()) & wanted.keys()
    refused: list[Incompatible] = []
    for subject in sorted(there):
        client.guard(subject)
        try:
            client.check(subject, wanted[subject])
        except Incompatible as error:
            refused.append(Incompatible(subject, error.messages or _why(client, subject, wanted[subject])))
    if refused:
        raise refused[0] if len(refused) == 1 else DeclarationError("\n".join(map(str, refused)))
    return there
