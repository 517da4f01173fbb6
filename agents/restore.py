"""Restore: a changelog in log order, up to one's own `own`, into a store.

    own(E) -> high = E       mark -> X, unless its epoch is below `high`       row -> the store, unless it is late
    reset  -> everything before is void: the owner found the changelog cut and began anew from the source

A batch of an epoch below the highest `own` before it was sent by a dead owner and landed late: its mark is ignored, and
a row of it counts only if its `upto` is higher than what is held; else the key is to be written again by the owner, or
compaction would keep the late row and remove the good one (design §7.6, model variant `design`).  A batch of the same
epoch whose X lies behind is a resent one and treated alike.  Packed rows are taken by the same rule, one by one: their
record's key is written again only with the same bytes, so there is nothing to write again.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from milepost.agents import store
from milepost.agents.changelog import MARK_KEY, OWN_KEY, RESET_KEY, Mark, epoch_of, load_mark
from milepost.agents.suspicion import TRY_KEY, Trying, load_trying, read_trying
from milepost.schemas.errors import ContractError, StoreError
from milepost.topology.line import LegSpec
from milepost.topology.packed import load_packed

CHANGED_MAX: Final = 200_000
"""Changed keys remembered for derived stores; beyond, everything is derived again."""

_position = struct.Struct(">qq")
_u64 = struct.Struct(">Q")


class Restore:
    """Applies changelog chunks to `rocks` until the owner's `own` at `own_at`.

    mark:    the last mark that counts, or None
    rewrite: keys (tag and all) that the owner must write again before anything else
    changed: (store name, key) rows that changed, or None: too many, or a restore before this one was cut off
    trying:  the last note of what an owner had in hand (agents/suspicion.py), or None
    """

    def __init__(self, rocks: store.Rocks, spec: LegSpec, own_at: int) -> None:
        self._rocks = rocks
        self._stores = {one.tag: one for one in spec.stores}
        self.spec = spec
        self.own_at = own_at
        held = rocks.get(store.POSITION)
        self.position: int
        self.high: int
        self.position, self.high = _position.unpack(held) if held else (-1, -1)
        if self.position >= own_at:
            raise StoreError(
                f"{rocks.folder}: holds offset {self.position} of a changelog that ends at {own_at}: "
                f"{spec.changelog} was cut or made anew"
            )
        data = rocks.get(store.MARK)
        self.mark: Mark | None = Mark.load(data) if data else None
        self._noted = rocks.get(store.TRY)
        self.trying: Trying | None = read_trying(self._noted, self.position + 1) if self._noted else None
        self._before = self.high
        self._begun = self.position + 1
        self._reset = False  # whether a reset was met
        self._void = False  # ... in the chunk in hand
        covered = rocks.scan(store.REWRITE, _after(store.REWRITE))
        self.rewrite: set[bytes] = {key[len(store.REWRITE) :] for key, _ in covered}
        cut_off = rocks.get(store.DERIVE) is not None
        self.changed: set[tuple[str, bytes]] | None = None if cut_off or held is None else set()
        self.ignored = 0
        self.applied = 0  # records taken from the changelog, for telemetry
        self._late = False

    @property
    def x(self) -> int:
        """The last source offset absorbed; -1: none."""
        return -1 if self.mark is None else self.mark.x

    @property
    def unclean(self) -> bool:
        """Whether the owner before us ended without giving the partition back in order."""
        given_back = self.trying is not None and self.trying.kind == "clean" and self.trying.epoch >= self._before
        return self._before >= 0 and not given_back

    def cut(self, start: int) -> bool:
        """Whether rows are missing: the changelog begins at `start`, behind what we held, and nobody began anew."""
        return self._begun < start and not self._reset

    def begin_anew(self, position: int) -> None:
        """Forget everything; `position` is where the changelog says so (a record under RESET_KEY)."""
        self.position = position
        self._forget()
        self._write({}, set(), None)

    @property
    def done(self) -> bool:
        return self.position >= self.own_at

    def apply(self, records: Sequence[Any]) -> None:
        """Apply a chunk in one write batch.  Records already applied, or behind the own `own`, are passed over.

        When the store refuses the batch (a full disk), nothing has moved: the same chunk may be given again."""
        before = self.position, self.high, self._late
        try:
            self._apply(records)
        except StoreError:
            self.position, self.high, self._late = before
            raise

    def _apply(self, records: Sequence[Any]) -> None:
        rows: dict[bytes, bytes | None] = {}
        rewrite = set(self.rewrite)
        mark = self.mark
        for record in records:
            if record.offset <= self.position or record.offset > self.own_at:
                continue
            self.position = record.offset
            self.applied += 1
            key = record.key or b""
            if key == OWN_KEY:
                if record.offset == self.own_at:
                    self._before = self.high
                self.high = max(self.high, record.offset)
                self._late = False
            elif key == RESET_KEY:
                note = load_trying(record)
                if note is not None and note.epoch >= self.high:
                    self._forget()
                    rows, rewrite, mark = {}, set(), None
            elif key == MARK_KEY:
                mark = self._mark(record, mark)
            elif key == TRY_KEY:
                note = load_trying(record)
                if note is not None and note.epoch >= self.high:
                    self.trying = note
            elif key and key[0] in self._stores:
                self._row(record, key, rows, rewrite, -1 if mark is None else mark.x)
            else:
                self.ignored += 1  # garbage in the topic: nothing of ours has such a key
        self._write(rows, rewrite, mark)

    def _forget(self) -> None:
        self._reset = self._void = True
        self.mark, self.changed = None, None

    def _mark(self, record: Any, held: Mark | None) -> Mark | None:
        mark = load_mark(record)
        if mark is None:
            self.ignored += 1
            self._late = False
            return held
        self._late = mark.epoch < self.high or (held is not None and mark.epoch == held.epoch and mark.x < held.x)
        if self._late or (held is not None and mark.x < held.x):
            return held
        return mark

    def _row(self, record: Any, key: bytes, rows: dict[bytes, bytes | None], rewrite: set[bytes], x: int) -> None:
        spec = self._stores[key[0]]
        epoch = epoch_of(record)
        late = epoch is None or epoch < self.high or self._late
        if spec.changelog == "packed":
            try:
                if epoch is None:
                    raise ContractError("not_decodable", "no owner wrote it")
                unpacked = load_packed(record.value or b"")
            except ContractError:
                self.ignored += 1
                return
            tag = key[:1]
            for row_key, value in unpacked:
                if late and not self._ahead(tag + row_key, value, rows):
                    continue
                rows[tag + row_key] = value
                self._remember(spec.name, row_key)
            return
        if spec.changelog != "each":
            self.ignored += 1
            return
        value = None if record.value is None else record.value[8:]
        if late:
            held = rows[key] if key in rows else self._rocks.get(key)
            # An absent row is no blank: the newer owner folded everything up to X and has none.
            upto = x if held is None else _u64.unpack_from(held)[0]
            if epoch is None or value is None or _u64.unpack_from(value)[0] <= upto:
                rewrite.add(key)
                return
        rewrite.discard(key)
        rows[key] = value
        self._remember(spec.name, key[1:])

    def _ahead(self, key: bytes, value: bytes | None, rows: Mapping[bytes, bytes | None]) -> bool:
        """Whether a late packed row says more than what is held.

        The record may be all that is left of a batch that counted: sent twice, it has the key of its first copy, and
        the cleaner kept the later one.  Packed rows are never deleted, so an absent one is a blank.
        """
        held = rows[key] if key in rows else self._rocks.get(key)
        return value is not None and (held is None or _u64.unpack_from(value)[0] > _u64.unpack_from(held)[0])

    def _remember(self, name: str, key: bytes) -> None:
        if self.changed is not None:
            self.changed.add((name, key))
            if len(self.changed) > CHANGED_MAX:
                self.changed = None

    def _write(self, rows: dict[bytes, bytes | None], rewrite: set[bytes], mark: Mark | None) -> None:
        changes: list[store.Change] = list(rows.items())
        if self._void:
            # Before the batch, not with it: whoever is cut off in between is still before the reset, and does it again.
            self._rocks.delete_range(b"\x01", b"\xff")
            changes += [(store.MARK, None), *((store.SOURCE + bytes((tag,)), None) for tag in self._stores)]
        changes += [(store.REWRITE + key, b"") for key in rewrite - self.rewrite]
        changes += [(store.REWRITE + key, None) for key in self.rewrite - rewrite]
        if mark is not None and mark is not self.mark:
            changes.append((store.MARK, mark.dump()))
        if self.trying is not None and (noted := self.trying.dump()) != self._noted:
            changes.append((store.TRY, noted))
            self._noted = noted
        if rows:
            changes.append((store.DERIVE, b""))
        changes.append((store.POSITION, position_value(self.position, self.high)))
        self._rocks.write(changes)
        self.rewrite, self.mark, self._void = rewrite, mark, False


def position_value(position: int, high: int) -> bytes:
    """The value under `store.POSITION`: changelog offset applied, highest `own` seen."""
    return _position.pack(position, high)


def _after(prefix: bytes) -> bytes:
    """The first key behind all keys that begin with `prefix`."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
