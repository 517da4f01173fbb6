"""Store: RocksDB under one leg and partition.

    <home>/state/<namespace>/<leg>-<partition>/      one folder, one owner

    tag(1) + key        -> value            the leg's rows (tag: `StoreSpec.tag`)
    00 "mark"           -> the last mark, as it lies in the changelog
    00 "pos"            -> changelog offset applied, highest `own` seen
    00 "rw" + tag + key -> ""               keys that the owner must write to the changelog again
    00 "src" + tag      -> source offset up to which a `source` store holds its rows
    00 "derive"         -> ""               a restore began; derived rows may be old
    00 "try"            -> what an owner had in hand (agents/suspicion.py)
    00 "stamp"          -> whose rows these are
    00 "link" + n mod 256 -> n, batches before it: the n-th link of the chain
    00 "seal" + n mod 256 -> n, batches up to the last one under link n

Rows, mark and position travel in one write batch: flipped bits in a write-ahead log drop everything behind them without
an error, so whatever is left must still know how far it goes.  And nothing may be missing before it: where the MANIFEST
lost its end, RocksDB opens an older list of files and plays the newest write-ahead log over it, a hole between the two.
So the batches are a chain: each life begins a link, and so does every half MiB; each batch says under the last link how
many there are, and the next link knows how many there were.  A folder with a broken chain is damaged.  One that is
damaged or belongs to something else is put aside and the store starts empty: everything in it can be had from the
changelog.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from rocksdict import BlockBasedOptions, Cache, Options, Rdict, ReadOptions, WriteBatch

from milepost.ops import telemetry
from milepost.schemas.errors import StoreError

log = logging.getLogger("milepost.agents.store")

CACHE_BYTES: Final = 128 * 1024 * 1024
MEMTABLE_BYTES: Final = 8 * 1024 * 1024
QUARANTINES_MAX: Final = 3
FORMAT: Final = 2
LINKS: Final = 256
"""Links that are kept and looked at; more than what is in memtables, and so in write-ahead logs, can hold."""
LINKS_A_MEMTABLE: Final = 16
ROW_BYTES: Final = 64
"""What a row takes of a memtable beside its bytes, at most."""

MARK: Final = b"\x00mark"
POSITION: Final = b"\x00pos"
REWRITE: Final = b"\x00rw"
SOURCE: Final = b"\x00src"
DERIVE: Final = b"\x00derive"
TRY: Final = b"\x00try"
STAMP: Final = b"\x00stamp"
LINK: Final = b"\x00link"
SEAL: Final = b"\x00seal"

_linked = struct.Struct(">QQ")

_FULL: Final = ("No space left", "Disk quota exceeded", "NoSpace")
"""How RocksDB names a full disk."""


class DiskFull(StoreError):
    """The disk under the stores has no room.  Nothing is damaged: what waits goes on when there is room again."""


Change = tuple[bytes, bytes | None]
"""A raw key (tag and all) and its new value; None deletes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Whose rows a folder holds.  Any difference sends it to quarantine."""

    cluster: str
    source_topic: str
    changelog_topic: str
    partitions: int
    leg: str
    partition: int
    format: int = FORMAT


@cache
def _block_cache() -> Cache:
    """One cache for all stores of the process."""
    return Cache(CACHE_BYTES)


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(_block_cache())
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(2)
    # Most keys that are looked for are new: a filter over what is in memory answers that in a third of the time.
    options.set_memtable_prefix_bloom_ratio(0.1)
    options.set_memtable_whole_key_filtering(True)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1024 * 1024)
    return options


class Rocks:
    """An open folder.  A failure of RocksDB becomes a StoreError; damage leaves a note for the next start."""

    def __init__(self, folder: Path, db: Rdict) -> None:
        self.folder = folder
        self._db: Rdict | None = db
        self._identity = _identity(folder)
        self._link = 0
        self._batches = 0
        self._unlinked = MEMTABLE_BYTES  # bytes since the last link: the first batch begins one

    def gone(self) -> str:
        """Why the folder is no longer the one that was opened, or "".  RocksDB itself would write on into deleted files
        until it needs a new one."""
        if self._db is None or (found := _identity(self.folder)) == self._identity:
            return ""
        return "it was deleted" if found is None else "another folder lies in its place"

    @property
    def closed(self) -> bool:
        return self._db is None

    def get(self, key: bytes) -> bytes | None:
        return self.get_many((key,))[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        db = self._handle()
        try:
            found: Any = db.get(list(keys))
        except Exception as error:
            raise self._failed("a read", error) from error
        return cast(list[bytes | None], found)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop, in order, as of this moment."""
        db = self._handle()
        try:
            bounds = ReadOptions()
            bounds.set_iterate_upper_bound(stop)
            pair: Any = None
            for pair in db.items(from_key=start, read_opt=bounds):
                yield pair
            # A block that cannot be read ends `items` without a word: an iterator that begins there says so.
            rest = db.iter(bounds)
            rest.seek(start if pair is None else pair[0] + b"\0")
            rest.status()
        except Exception as error:
            raise self._failed("a scan", error) from error

    def write(self, changes: Iterable[Change]) -> None:
        """All changes or none of them."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes:
            if value is None:
                delete(key)
            else:
                put(key, value)
        self._write(batch, "a batch")

    def delete_range(self, start: bytes, stop: bytes) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(start, stop)
        self._write(batch, "a range deletion")

    def _write(self, batch: WriteBatch, what: str) -> None:
        db = self._handle()
        link, batches = self._link, self._batches
        unlinked = self._unlinked + batch.size_in_bytes() + ROW_BYTES * batch.len()
        if unlinked >= MEMTABLE_BYTES // LINKS_A_MEMTABLE:
            link, unlinked = link + 1, 0
            batch.put(_at(LINK, link), _linked.pack(link, batches))
        batch.put(_at(SEAL, link), _linked.pack(link, batches + 1))
        try:
            db.write(batch)
        except Exception as error:
            raise self._failed(what, error) from error
        self._link, self._batches, self._unlinked = link, batches + 1, unlinked

    def broken(self) -> str:
        """Why rows are missing before the last, or "".  To be asked before anything is written."""
        links, seals = self._chain(LINK), self._chain(SEAL)
        self._link = max(seals, default=0)
        self._batches = seals.get(self._link, 0)
        for link in range(max(1, self._link - LINKS + 1), self._link + 1):
            before = links.get(link + 1, self._batches)  # of the last link the last batch is all there is
            if link not in links or seals.get(link) != before:
                return f"batches are missing between others: under link {link} of {self._link}"
        return ""

    def _chain(self, kind: bytes) -> dict[int, int]:
        """Link -> batches, of the last links."""
        found = self.get_many([_at(kind, number) for number in range(LINKS)])
        return dict(_linked.unpack(one) for one in found if one is not None)

    @property
    def memtable_bytes(self) -> int:
        """What its memtables take of memory: it grows to their bound while little is written."""
        return 0 if self._db is None else int(self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0)

    def close(self) -> None:
        """Give the folder back; a second call does nothing."""
        db, self._db = self._db, None
        if db is not None:
            _close(self.folder, db)

    def _handle(self) -> Rdict:
        if self._db is None:
            raise StoreError(f"{self.folder}: the store is closed")
        return self._db

    def _failed(self, what: str, error: Exception) -> StoreError:
        """What a failure of RocksDB means: a full disk is no damage, what is written is whole; all else may be."""
        if _is_full(error):
            return DiskFull(f"{self.folder}: no room for {what}: {error}")
        note_damage(self.folder, f"{what}: {error}")
        return StoreError(f"{self.folder}: {what} failed: {error}; it is set aside and restored at the next start")


class TableBase:
    """One store's rows in a folder, as the overlay sees them (`topology.state.Base`)."""

    __slots__ = ("_rocks", "_tag")

    def __init__(self, rocks: Rocks, tag: int) -> None:
        self._rocks = rocks
        self._tag = bytes((tag,))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        tag = self._tag
        return self._rocks.get_many([tag + key for key in keys])

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._rocks.scan(self._tag + start, self._tag + stop):
            yield key[1:], value


def open_store(folder: Path, stamp: Stamp) -> Rocks:
    """Open `folder`, or set it aside and start empty when it is damaged or its stamp is another's.

    Raises DiskFull when there is no room to open it: it is left as it is.
    """
    wanted = json.dumps(asdict(stamp), sort_keys=True).encode()
    reason = _read_note(folder)
    if reason is None:
        rocks, reason = _try(folder, wanted)
        if rocks is not None:
            return rocks
    if quarantine(folder, reason) is not None:
        telemetry.quarantined(stamp.leg)
    rocks, again = _try(folder, wanted)
    if rocks is None:
        raise StoreError(f"{folder}: cannot be opened even empty: {again}; fix: check the disk and its permissions")
    return rocks


def _try(folder: Path, wanted: bytes) -> tuple[Rocks | None, str]:
    fresh = not _holds_rows(folder)
    db: Rdict | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not fresh and not (folder / "CURRENT").exists():
            return None, "it has files and no CURRENT: RocksDB would take it for a new one"
        db = Rdict(str(folder), _options())
        rocks = Rocks(folder, db)
        held = rocks.get(STAMP)
        reason = rocks.broken()
        if held == wanted and not reason:
            return rocks, ""
        if held is None and (fresh or next(rocks.scan(b"", b"\xff"), None) is None):
            rocks.write([(STAMP, wanted)])
            return rocks, ""
        reason = (
            reason or f"its stamp is {held.decode(errors='replace') if held else 'missing'}, expected {wanted.decode()}"
        )
    except Exception as error:
        if "LOCK" in str(error):
            raise StoreError(f"{folder}: another process holds it; fix: a MILEPOST_HOME for each: {error}") from error
        if _is_full(error):
            if db is not None:
                _close(folder, db)
            raise DiskFull(f"{folder}: no room to open it: {error}") from error
        reason = f"it does not open: {error}"
    if db is not None:
        _close(folder, db)
    return None, reason


def _close(folder: Path, db: Rdict) -> None:
    try:
        db.close()
    except Exception as error:  # noqa: BLE001 - the folder is deleted or damaged, or the disk is full
        log.error("%s: closing failed; nothing is lost, the changelog holds it: %s", folder, error)


def make_room(folder: Path) -> bool:
    """Delete what was set aside beside `folder`; True if there was anything.  It is kept for people to look at, and a
    full disk needs the room more."""
    found = _quarantines(folder)
    for one in found:
        shutil.rmtree(one, ignore_errors=True)
        log.warning("%s is deleted to make room", one)
    return bool(found)


def quarantine(folder: Path, reason: str) -> Path | None:
    """Rename `folder` to .quarantine-N and keep the newest few.  Returns the new place; None: nothing was there."""
    if not folder.exists():
        return None
    number = 1 + max((_number(one) for one in _quarantines(folder)), default=0)
    place = folder.with_name(f"{folder.name}.quarantine-{number}")
    folder.rename(place)
    log.error("%s is set aside as %s and restored from the changelog: %s", folder, place.name, reason)
    for old in sorted(_quarantines(folder), key=_number)[:-QUARANTINES_MAX]:
        shutil.rmtree(old)
    return place


def note_damage(folder: Path, reason: str) -> None:
    """Leave a note that the folder cannot be trusted, for the next start."""
    try:
        (folder / "DAMAGED").write_text(reason)
    except OSError as error:  # a full or read-only disk: the error itself still ends the process
        log.error("%s: no note could be left: %s", folder, error)


def _at(kind: bytes, link: int) -> bytes:
    """The key of a link or seal."""
    return kind + (link % LINKS).to_bytes(2, "big")


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in _FULL)


def _holds_rows(folder: Path) -> bool:
    """Whether RocksDB has begun to write rows there; a folder that a full disk left half made has none."""
    return folder.exists() and any(one.suffix in (".sst", ".log") for one in folder.iterdir())


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells this folder from another in its place; None: it is not there, or is no store."""
    try:
        (folder / "CURRENT").stat()
        held = folder.stat()
    except OSError:
        return None
    return held.st_dev, held.st_ino


def _read_note(folder: Path) -> str | None:
    try:
        return (folder / "DAMAGED").read_text()
    except OSError:
        return None  # no note is the usual case


def _quarantines(folder: Path) -> list[Path]:
    return [one for one in folder.parent.glob(f"{folder.name}.quarantine-*") if one.is_dir()]


def _number(place: Path) -> int:
    tail = place.name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else 0


def cache_bytes() -> int:
    """What the block cache of all stores takes of memory."""
    return int(_block_cache().get_usage())


def disk_bytes(folder: Path) -> int:
    """Bytes of the files in `folder`, for telemetry."""
    total = 0
    for entry in os.scandir(folder) if folder.exists() else ():
        try:
            total += entry.stat().st_size
        except FileNotFoundError:
            continue  # RocksDB removes files while we look
    return total
