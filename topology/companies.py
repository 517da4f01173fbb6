"""Companies: who there is, under which keys, and which leaf a question means.

    mk_... | key:value  ->  leaf  ->  component of the graph (as decided by c)  ->  root, whose MetaKey the answer names

The values of keys lie in ingest's store `keys`, by leaf, in whichever raw partitions met them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from milepost.schemas import keys
from milepost.topology.bases import written
from milepost.topology.graph import Components
from milepost.topology.links import Link, chain
from milepost.topology.parts import CompanyKeys, KeyRows
from milepost.topology.protection import COMPANY
from milepost.topology.reading import Reader
from milepost.topology.refusals import BadParameter, UnknownCompany, UnknownKey, closest
from milepost.topology.state import UPTO
from milepost.topology.steps import Steps, gather

LINKS_MAX: Final = 1_000
"""Links that one answer shows at most."""
THING_KEYS_MAX: Final = 1_000
"""Keys of a thing that one answer shows at most."""
GUESSES_MAX: Final = 1_000
GUESS_SCAN: Final = 4_096
"""Values that a guess is made from at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """What `keys` holds of a leaf.  k_ms: when it was first known."""

    leaf: bytes
    org: str
    entity: str
    kind: str
    value: str
    label: bool
    source: str
    k_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """A root company with all its keys, by (rank of kind, k, value)."""

    root: bytes
    keys: tuple[KeyRow, ...]

    @property
    def name(self) -> str:
        """The display name: the first key that is a label, else the first key's value, else the MetaKey."""
        labels = [row.value for row in self.keys if row.label] or [row.value for row in self.keys]
        return labels[0] if labels else keys.metakey(self.root)

    def as_dict(self) -> dict[str, Any]:
        return {
            "metakey": keys.metakey(self.root),
            "name": self.name,
            "keys": [f"{row.kind}:{row.value}" for row in self.keys],
        }


class Companies:
    """The companies of one organisation, over the tables as they are now."""

    def __init__(self, reader: Reader, org: str, rank: Mapping[tuple[str, str], int]) -> None:
        self._reader = reader
        self._org = org
        self._rank = rank

    def row(self, leaf: bytes) -> Steps[KeyRow | None]:
        """The key of a leaf of this organisation; of several partitions the row with the least k."""
        return (yield from self.rows((leaf,))).get(leaf)

    def rows(self, leaves: Collection[bytes]) -> Steps[dict[bytes, KeyRow]]:
        """The keys of those leaves that are known here; of several partitions the row with the least k."""
        some = tuple(leaves)
        found: dict[bytes, KeyRow] = {}
        parts = [KeyRows(partition=number, leaves=some) for number in range(self._reader.partitions)] if some else []
        for values in (yield from gather(self._reader, parts)):
            for leaf, value in zip(some, values, strict=True):
                if value is not None:
                    self._earliest(found, _row(leaf, value))
        return found

    def leaf(self, text: str) -> Steps[bytes]:
        """The leaf that `mk_...` or `key:value` names.  Raises UnknownCompany with a guess."""
        if text.startswith("mk_"):
            try:
                leaf = keys.from_metakey(text)
            except ValueError as error:
                raise UnknownCompany(str(error)[:200], fix="company=mk_… or company=key:value") from error
            row = yield from self.row(leaf)
            if row is None:
                raise UnknownCompany(f"no company has the MetaKey {text}", fix="GET /v1/companies lists them")
            if row.entity != COMPANY:
                raise UnknownCompany(f"{text} is a {row.entity}, not a company")
            return leaf
        kind, colon, value = text.partition(":")
        if not colon:
            raise UnknownCompany(
                f"{text[:64]!r} is neither a MetaKey nor key:value", fix="company=mk_… or company=carrier_code:UA"
            )
        kinds = self.kinds(COMPANY)
        if kind not in kinds:
            guess = closest(kind, kinds)
            raise UnknownCompany(
                f"companies have no key {kind[:64]!r}",
                guess=f"{guess}:{value}"[:200] if guess else None,
                fix=f"one of {', '.join(kinds)}",
            )
        leaf = self.leaf_of(COMPANY, kind, value)
        if (yield from self.row(leaf)) is None:
            guess = closest(value, (yield from self.some_values(kind)))
            raise UnknownCompany(
                f"no company has {kind} {value[:64]!r}",
                guess=f"{kind}:{guess}" if guess else None,
                fix="GET /v1/companies?q=… searches them",
            )
        return leaf

    def leaf_of(self, entity: str, kind: str, value: str) -> bytes:
        """The leaf of an alternate key, known or not.  Raises BadParameter for text that is no Unicode."""
        try:
            return keys.leaf(self._reader.org_key[self._org], entity, kind, value)
        except UnicodeEncodeError as error:
            raise BadParameter("a key's value is not valid Unicode") from error

    def kinds(self, entity: str) -> list[str]:
        """The kinds of keys of an entity, highest first."""
        return [kind for (of, kind), _ in sorted(self._rank.items(), key=lambda one: one[1]) if of == entity]

    def resolve(self, entity: str, kind: str, value: str, c_ms: int | None) -> Steps[dict[str, Any]]:
        """What a key stands for: its own MetaKey, the root's with name and keys, and the chain of links between them,
        all as decided by c."""
        entities = sorted({of for of, _ in self._rank})
        if entity not in entities:
            raise UnknownKey(f"there is no entity {entity[:64]!r}", guess=closest(entity, entities))
        if kind not in self.kinds(entity):
            guess = closest(kind, self.kinds(entity))
            raise UnknownKey(f"{entity} has no key {kind[:64]!r}", guess=guess)
        leaf = self.leaf_of(entity, kind, value)
        if (yield from self.row(leaf)) is None:
            raise UnknownKey(f"no event has named {entity}/{kind} {value[:64]!r}")
        components = yield from self._components(c_ms)
        root = components.root(leaf)
        way = chain(components.edges(root), leaf, root)
        rows = yield from self.rows({end for link in way for end in (link.a, link.b)})
        thing = (yield from self.companies((root,), components))[root].as_dict()
        return {
            "entity": entity,
            "key": kind,
            "value": value,
            "leaf": keys.metakey(leaf),
            "metakey": keys.metakey(root),
            "name": thing["name"],
            "keys": thing["keys"][:THING_KEYS_MAX],
            "at": None if c_ms is None else written(c_ms),
            "links": [written_link(link, rows) for link in way],
        }

    def companies(self, roots: Collection[bytes], components: Components) -> Steps[dict[bytes, Company]]:
        """Root companies with the keys of all their leaves."""
        leaves = {root: components.leaves(root) for root in roots}
        rows = yield from self.rows({leaf for some in leaves.values() for leaf in some})
        return {
            root: Company(root=root, keys=self._ordered(rows[leaf] for leaf in some if leaf in rows))
            for root, some in leaves.items()
        }

    def detail(self, leaf: bytes) -> Steps[dict[str, Any]]:
        """A company with every key, where and when it was first met, and the links that hold it together."""
        components = yield from self._components(None)
        root = components.root(leaf)
        company = (yield from self.companies((root,), components))[root]
        rows = {row.leaf: row for row in company.keys}
        return {
            **company.as_dict(),
            "alternate_keys": [
                {
                    "key": row.kind,
                    "value": row.value,
                    "source": row.source,
                    "first_known": written(row.k_ms),
                    "metakey": keys.metakey(row.leaf),
                    "label": row.label,
                }
                for row in company.keys
            ],
            "links": [written_link(link, rows) for link in components.edges(root)[:LINKS_MAX]],
        }

    def all(self) -> Steps[list[Company]]:
        """All companies, by name and MetaKey."""
        components = yield from self._components(None)
        found: dict[bytes, dict[bytes, KeyRow]] = {}
        todo: list[CompanyKeys] = [CompanyKeys(partition=number) for number in range(self._reader.partitions)]
        while todo:
            pages = yield from gather(self._reader, todo)
            for rows, _ in pages:
                for row in self._of_companies(rows):
                    self._earliest(found.setdefault(components.root(row.leaf), {}), row)
            todo = [replace(one, start=start) for one, (_, start) in zip(todo, pages, strict=True) if start is not None]
            yield None
        companies = [Company(root=root, keys=self._ordered(leaves.values())) for root, leaves in found.items()]
        return sorted(companies, key=lambda one: (one.name.casefold(), one.root))

    def _components(self, c_ms: int | None) -> Steps[Components]:
        return (yield from self._reader.decisions.components(self._org, c_ms))

    def _ordered(self, rows: Iterable[KeyRow]) -> tuple[KeyRow, ...]:
        last = len(self._rank)
        return tuple(sorted(rows, key=lambda row: (self._rank.get((row.entity, row.kind), last), row.k_ms, row.value)))

    def _of_companies(self, rows: Iterable[Sequence[bytes]]) -> list[KeyRow]:
        found = [_row(leaf, value) for leaf, value in rows]
        return [row for row in found if row.entity == COMPANY and row.org == self._org]

    def _earliest(self, into: dict[bytes, KeyRow], row: KeyRow) -> None:
        known = into.get(row.leaf)
        if row.org == self._org and (known is None or (row.k_ms, row.source) < (known.k_ms, known.source)):
            into[row.leaf] = row

    def some_values(self, kind: str) -> Steps[list[str]]:
        """Up to 1,000 values of a company key, of the first 4,096 keys of each partition, for a guess: asking for what
        is not there must not cost more than asking for what is."""
        found: dict[str, None] = {}
        parts = [CompanyKeys(partition=number, scan=GUESS_SCAN) for number in range(self._reader.partitions)]
        for rows, _ in (yield from gather(self._reader, parts)):
            found.update((row.value, None) for row in self._of_companies(rows) if row.kind == kind)
        return list(found)[:GUESSES_MAX]


def written_link(link: Link, rows: Mapping[bytes, KeyRow]) -> dict[str, Any]:
    """An edge and where it comes from: `record` is the raw record that proposed or decided it."""
    named = {leaf: f"{row.kind}:{row.value}" for leaf in (link.a, link.b) if (row := rows.get(leaf)) is not None}
    return {
        "a": keys.metakey(link.a),
        "b": keys.metakey(link.b),
        "keys": [named.get(link.a), named.get(link.b)],
        "known_from": written(link.k_ms),
        "how": "by hand" if link.by_hand else "proposed",
        "by": link.by or None,
        "record": f"raw-events/{link.at[0]}@{link.at[1]}",
    }


def _row(leaf: bytes, value: bytes) -> KeyRow:
    row = orjson.loads(value[UPTO:])
    return KeyRow(
        leaf=leaf,
        org=row["org"],
        entity=row["entity"],
        kind=row["key"],
        value=row["value"],
        label=row["label"],
        source=row["source"],
        k_ms=row["k"],
    )
