"""Breach records: that a breach of a source's contract begins or ends, as raw events of ours.

    milepost.source_stale | _silent | _unmatched | _schema  {source, holds, since}    holds: it begins, else it ends

They come under the source `milepost`, like decisions by hand, so that dedupe, known time, replay, rules and explanation
are those of every event.  Such an event is about the source, not about a company: it lies under the leaf of the key
`name` of the entity `source`, as the weather lies under a site's; the organisation's numbers hold it, and a
company's only where a membership says whose source it is.  A rule may name the type (`on: milepost.source_stale`).

Its id says everything it says, so whoever tells of the same breach again sends the same record, which counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from milepost.schemas.contracts import Contract, compile_contract
from milepost.schemas.errors import ContractError
from milepost.schemas.keys import PART_BYTES_MAX
from milepost.topology.bases import written

if TYPE_CHECKING:
    from milepost.topology.breaches import Breach

Kind = Literal["stale", "silent", "schema", "unmatched"]
"""How a source breaks its contract (breaches.py)."""
KINDS: Final[tuple[Kind, ...]] = ("stale", "silent", "schema", "unmatched")
"""The gravest first: the state of a source with several breaches is the first of them."""
ENTITY: Final = "source"
KEY: Final = "name"
"""The kind of key under which a source lies as a thing that events are about."""
_CONTRACT: Final = compile_contract(
    "Breaching",
    b"""{"type": "record", "name": "Breaching", "fields": [
      {"name": "source", "type": "string"}, {"name": "holds", "type": "boolean"}, {"name": "since", "type": "string"},
      {"name": "by", "type": ["null", "string"], "default": null}]}""",
)
TYPES: Final[Mapping[str, Contract]] = {f"milepost.source_{kind}": _CONTRACT for kind in KINDS}
"""Event type -> its contract."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Turn:
    """A breach of a source begins (`holds`) or ends, at a known time."""

    at_ms: int
    source: str
    kind: Kind
    holds: bool

    @property
    def type(self) -> str:
        return f"milepost.source_{self.kind}"

    def event(self, org: str) -> dict[str, Any]:
        """The raw event that says so."""
        at = written(self.at_ms)
        return {
            "org": org,
            "source": "milepost",
            "id": f"{self.kind}/{'begins' if self.holds else 'ends'}/{self.at_ms}/{self.source}",
            "type": self.type,
            "time": at,
            "data": {"source": self.source, "holds": self.holds, "since": at, "by": None},
        }


def turns(source: str, found: Iterable[Breach], after_ms: int, until_ms: int) -> list[Turn]:
    """The beginnings and ends of breaches in (after_ms, until_ms], in their order."""
    told = [Turn(at_ms=one.begin_ms, source=source, kind=one.kind, holds=True) for one in found]
    told += [
        Turn(at_ms=one.end_ms, source=source, kind=one.kind, holds=False) for one in found if one.end_ms is not None
    ]
    return sorted(one for one in told if after_ms < one.at_ms <= until_ms)


def named(data: Mapping[str, Any]) -> str:
    """The source that a breach record is about.  Raises ContractError."""
    name = data["source"]
    if not 0 < len(name.encode(errors="replace")) <= PART_BYTES_MAX:
        raise ContractError("contract_violation", f"the name of a source has 1 to {PART_BYTES_MAX} bytes")
    found: str = name
    return found
