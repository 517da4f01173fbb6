"""Evolution: what a new version of a contract breaks, by the rules of Avro, both ways and against all versions.

    backward  the new contract reads what was written under an old one: a log can be replayed
    forward   an old contract reads what is written under the new one: who has not changed yet goes on

Both, against every version there was, is what registries call FULL_TRANSITIVE.  The same is decided here without one,
and a test holds both against each other.  Stricter in three things, for `data` is JSON and nobody resolves it: an alias
does not stand for its field, an enum's default not for a symbol that is gone, and a default stays, because what had one
may have been left out.

Source: Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Path = tuple[str, ...]

_PROMOTED: Final[Mapping[str, frozenset[str]]] = {
    "long": frozenset({"int"}),
    "float": frozenset({"int", "long"}),
    "double": frozenset({"int", "long", "float"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""Reader's type -> other types of a writer's that it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One thing that a new version breaks.

    path:    names of fields from the record down; empty for the record itself
    said:    what was there and what is there now
    reading: backward: what was written cannot be read;  forward: who reads by the old contract cannot read what comes
    """

    path: Path
    said: str
    reading: Literal["backward", "forward"]


def breaks(old: str | bytes, new: str | bytes) -> list[Break]:
    """What the schema `new` breaks against `old`, both as text that is Avro; nothing when each reads the other."""
    before, after = _Schema(old), _Schema(new)
    found = [Break(path=at, said=said, reading="backward") for at, said in _read_by(after, before, sent=True)]
    found += [Break(path=at, said=said, reading="forward") for at, said in _read_by(before, after, sent=False)]
    return list(dict.fromkeys(found))


def begins(versions: Sequence[str | bytes]) -> int:
    """From which of the versions on, oldest first, each reads each other: what was let through before is history."""
    start = max(0, len(versions) - 1)
    while start and not any(breaks(versions[start - 1], later) for later in versions[start:]):
        start -= 1
    return start


def same(one: str | bytes, other: str | bytes) -> bool:
    """Whether two schemas say the same, descriptions aside."""
    return bool(_bare(json.loads(one)) == _bare(json.loads(other)))


class _Schema:
    """A schema with its named types: full name -> declaration, and the namespace that holds at each."""

    def __init__(self, text: str | bytes) -> None:
        self.root = json.loads(text)
        self.sent = False  # whether what it writes may lack what has a default
        self.names: dict[str, Mapping[str, Any]] = {}
        self._declare(self.root, "")

    def _declare(self, node: Any, space: str) -> None:
        if isinstance(node, list):
            for one in node:
                self._declare(one, space)
        if not isinstance(node, dict):
            return
        if node.get("type") in ("record", "error", "enum", "fixed"):
            name, given = str(node["name"]), node.get("namespace")
            space = name.rpartition(".")[0] if "." in name else str(given if given is not None else space)
            self.names[name if "." in name or not space else f"{space}.{name}"] = node
            self.names.setdefault(name.rpartition(".")[2], node)
        for field in node.get("fields", ()):
            self._declare(field["type"], space)
        for inner in ("items", "values", "type"):
            if isinstance(node.get(inner), dict | list):
                self._declare(node[inner], space)

    def of(self, node: Any) -> Any:
        """A node without references and wrappers: a dict with `type`, or a list (a union)."""
        while True:
            if isinstance(node, str):
                node = self.names.get(node) or self.names.get(node.rpartition(".")[2]) or {"type": node}
            elif isinstance(node, dict) and isinstance(node.get("type"), dict | list):
                node = node["type"]
            elif isinstance(node, dict) and node["type"] in self.names and node is not self.names[node["type"]]:
                node = self.names[node["type"]]
            else:
                return node


def _read_by(reader: _Schema, writer: _Schema, *, sent: bool) -> Iterator[tuple[Path, str]]:
    writer.sent = sent
    return _unread(reader, reader.root, writer, writer.root)


def _unread(reader: _Schema, r: Any, writer: _Schema, w: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Why the reader does not read what the writer writes, with the place."""
    r, w = reader.of(r), writer.of(w)
    if isinstance(w, list):
        for branch in w:
            yield from _unread(reader, r, writer, branch, path)
        return
    if isinstance(r, list):
        if not any(not list(_unread(reader, branch, writer, w, path)) for branch in r):
            yield path, f"{_told(writer, w)} is written, {_told(reader, r)} is read"
        return
    if r["type"] != w["type"]:
        if w["type"] not in _PROMOTED.get(r["type"], ()):
            yield path, f"{_told(writer, w)} is written, {_told(reader, r)} is read"
        return
    match r["type"]:
        case "record" | "error":
            yield from _named(r, w, path)
            yield from _fields(reader, r, writer, w, path)
        case "enum":
            yield from _named(r, w, path)
            lost = [one for one in w["symbols"] if one not in r["symbols"]]
            if lost:
                yield path, f"the symbol {lost[0]} is written, {', '.join(r['symbols'][:5])} are read"
        case "fixed":
            yield from _named(r, w, path)
            if r["size"] != w["size"]:
                yield path, f"{w['size']} bytes are written, {r['size']} are read"
        case "array":
            yield from _unread(reader, r["items"], writer, w["items"], path)
        case "map":
            yield from _unread(reader, r["values"], writer, w["values"], path)


def _fields(
    reader: _Schema, r: Mapping[str, Any], writer: _Schema, w: Mapping[str, Any], path: Path
) -> Iterator[tuple[Path, str]]:
    written = {one["name"]: one for one in w["fields"]}
    for one in r["fields"]:
        name = one["name"]
        if name in written:
            yield from _unread(reader, one["type"], writer, written[name]["type"], (*path, name))
            if writer.sent and "default" in written[name] and "default" not in one and not _nullable(reader, one):
                yield (*path, name), "it may have been left out, for it had a default; none is read"
        elif "default" not in one:
            yield (*path, name), f"it is read as {_told(reader, reader.of(one['type']))} without a default, not written"


def _nullable(schema: _Schema, field: Mapping[str, Any]) -> bool:
    kind = schema.of(field["type"])
    return isinstance(kind, list) and "null" in kind


def _named(r: Mapping[str, Any], w: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    ours, theirs = (str(one["name"]).rpartition(".")[2] for one in (r, w))
    known = {ours, *(str(one).rpartition(".")[2] for one in r.get("aliases", ()))}
    if theirs not in known:
        yield path, f"it is written as {theirs}, read as {ours}"


def _told(schema: _Schema, node: Any) -> str:
    if isinstance(node, list):
        return " or ".join(_told(schema, schema.of(one)) for one in node)
    return str(node["name"] if "name" in node else node["type"])


def _bare(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: inner if name == "default" else _bare(inner) for name, inner in node.items() if name != "doc"}
    return [_bare(one) for one in node] if isinstance(node, list) else node
