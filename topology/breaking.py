"""Breaking: what a new version of a contract would break, as findings at its fields.

    versions of a contract ─▶ schemas/evolution.py ─▶ fields ─▶ rules, keys, records ─▶ metrics, milestones, plans

A log is replayed under contracts of later, and who reads our contracts changes when they like: so a new version reads,
and is read by, every one before it.  What an older release let through is history: nothing before it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from milepost.schemas import evolution
from milepost.schemas.contracts import SchemaFault, compile_contract
from milepost.schemas.errors import Finding
from milepost.schemas.evolution import Break
from milepost.topology.catalog import Catalog
from milepost.topology.changes import Node, dependents

LISTED_MAX: Final = 20
"""Definitions that one finding lists."""
FIX: Final = (
    "give the field back as it was, or a default to what is new; what means something else is a new type of event, "
    "with a contract of its own"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A text that a contract had, and the first bundle that had it (hex)."""

    text: bytes = field(repr=False)
    bundle: str


Versions = Mapping[str, Sequence[Version]]
"""Contract's name -> its versions, oldest first; the last is in force."""


def follow(versions: dict[str, list[Version]], files: Mapping[str, bytes], bundle: bytes) -> None:
    """A bundle was applied: its contracts, where their text is a new one.  One that comes back is in force again."""
    for path, text in files.items():
        if not path.startswith("schemas/"):
            continue
        name = path.removeprefix("schemas/").removesuffix(".avsc")
        known = versions.setdefault(name, [])
        if known and known[-1].text == text:
            continue
        earlier = next((one for one in known if one.text == text), None)
        if earlier is not None:
            known.remove(earlier)
        known.append(earlier or Version(text=text, bundle=bundle.hex()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A field (or, with an empty path, the record) that a new version breaks, and since which bundle it was so."""

    schema: str
    bundle: str
    found: Break


def broken(versions: Versions, files: Mapping[str, bytes]) -> list[Broken]:
    """What the contracts of a bundle's files break; what is no contract is found by others."""
    out: list[Broken] = []
    for name in changed(versions, files):
        text = files[f"schemas/{name}.avsc"]
        known = [one for one in versions[name] if _contract(name, one.text)]
        since = known[evolution.begins([one.text for one in known]) :]
        seen: set[tuple[evolution.Path, str]] = set()
        for version in reversed(since):
            for one in evolution.breaks(version.text, text):
                if (one.path, one.reading) not in seen:
                    seen.add((one.path, one.reading))
                    out.append(Broken(schema=name, bundle=version.bundle, found=one))
    return out


def changed(versions: Versions, files: Mapping[str, bytes]) -> list[str]:
    """The contracts of a bundle's files that say something else than the ones in force."""
    out = []
    for name, past in versions.items():
        text = files.get(f"schemas/{name}.avsc")
        if text is not None and past and _contract(name, text) and not evolution.same(past[-1].text, text):
            out.append(name)
    return out


def findings(
    found: Sequence[Broken], catalog: Catalog, files: Mapping[str, bytes], unread: Mapping[str, str]
) -> list[Finding]:
    """The findings that refuse a bundle.

    catalog: in force
    unread:  contract -> which records of the log it could not read, in words; also of what breaks no version: a field
             that comes may have been sent before it was declared, as something else
    """
    out = [
        Finding(file=f"schemas/{name}.avsc", line=1, column=1, message=said, fix=FIX)
        for name, said in unread.items()
        if not any(one.schema == name and one.found.reading == "backward" for one in found)
    ]
    for one in found:
        what = touched(catalog, one.schema, one.found.path)
        more = f" and {len(what) - LISTED_MAX} more" if len(what) > LISTED_MAX else ""
        parts = [_said(one)]
        parts += [f"it would break {', '.join(what[:LISTED_MAX])}{more}"] if what else []
        parts += [unread[one.schema]] if one.found.reading == "backward" and one.schema in unread else []
        line, column = _place(files[f"schemas/{one.schema}.avsc"], one.found.path)
        out.append(
            Finding(file=f"schemas/{one.schema}.avsc", line=line, column=column, message="; ".join(parts), fix=FIX)
        )
    return out


def touched(catalog: Catalog, schema: str, path: evolution.Path) -> list[str]:
    """What reads a field of a contract, itself or at any remove: `signal departed`, `metric departures`, …"""
    direct = list(dict.fromkeys(_readers(catalog, schema, path)))
    nodes = [node for node, _ in direct]
    said = [told or " ".join(node) for node, told in direct]
    return [*said, *(" ".join(one) for one in dependents(catalog, nodes) if one not in nodes)]


def _readers(catalog: Catalog, schema: str, path: evolution.Path) -> Iterator[tuple[Node, str]]:
    """(node, how it is told where that is not its name) of what reads the field directly."""
    types = {
        type for source in catalog.sources.values() for type, one in source.types.items() if one.schema_name == schema
    }
    for rule in catalog.rules.values():
        read = [*(rule.when.paths if rule.when is not None else ())]
        read += [one for expression in rule.fields.values() for one in expression.paths]
        if rule.on in types and any(_meets(tuple(one.split(".")[1:]), path) for one in read if one.startswith("data.")):
            yield ("signal", rule.name), ""
    for record in catalog.records.values():
        for write in record.writes:
            if write.on in types and any(_meets(one, path) for one in (write.id, *write.fields.values())):
                yield ("record", record.name), ""
    for source in catalog.sources.values():
        if types.isdisjoint(source.types):
            continue
        for key in source.identities:
            if _meets(key.path, path):
                yield ("source", source.name), f"the key {key.entity}/{key.key} of {source.name}"


def _meets(read: evolution.Path, path: evolution.Path) -> bool:
    """Whether one of the two fields is, or lies in, the other."""
    least = min(len(read), len(path))
    return read[:least] == path[:least]


def _contract(name: str, text: bytes) -> bool:
    try:
        compile_contract(name, text)
    except SchemaFault:
        return False
    return True


def _said(one: Broken) -> str:
    where = ".".join(("data", *one.found.path))
    if one.found.reading == "backward":
        return f"{where}: what was sent under bundle {one.bundle} could not be read: {one.found.said}"
    return f"{where}: who reads by the contract of bundle {one.bundle} could not read what comes: {one.found.said}"


def _place(text: bytes, path: evolution.Path) -> tuple[int, int]:
    """Line and column of a field's name in a schema; of its beginning where the field is gone."""
    if path:
        pattern = re.compile(r'"name"\s*:\s*"' + re.escape(path[-1]) + '"')
        for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
            found = pattern.search(line)
            if found is not None:
                return number, found.start() + 1
    return 1, 1
