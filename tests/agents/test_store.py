"""The store under a leg and partition: order, atomicity, identity, and every kind of damage."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from milepost.agents import store
from milepost.agents.store import Rocks, Stamp, TableBase, open_store, quarantine
from milepost.schemas.errors import StoreError
from milepost.topology.state import Store

STAMP = Stamp(cluster="c", source_topic="s", changelog_topic="l", partitions=2, leg="count", partition=0)
ROWS = 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "count-0"


def filled(folder: Path, rows: int = ROWS) -> None:
    """What a kill -9 leaves: rows in sorted files and in the write-ahead log, the last batch with a position."""
    live = folder.with_name("live")
    rocks = open_store(live, STAMP)
    rocks.write([(b"\x01%06d" % i, b"%d" % i * 40) for i in range(rows)])
    rocks._handle().flush()
    rocks.write([(b"\x02%06d" % i, b"x") for i in range(rows)] + [(store.POSITION, b"p" * 16)])
    shutil.copytree(live, folder)
    rocks.close()


def test_ranges_are_ordered_and_half_open(folder: Path) -> None:
    """A scan gives start <= key < stop, in order, of one tag alone."""
    filled(folder)
    rocks = open_store(folder, STAMP)
    base = TableBase(rocks, 1)
    assert [key for key, _ in base.scan(b"000010", b"000013")] == [b"000010", b"000011", b"000012"]
    assert sum(1 for _ in base.scan(b"", b"\xff" * 8)) == ROWS
    assert base.get_many([b"000001", b"nothing"]) == [b"1" * 40, None]
    rocks.close()


def test_an_overlay_reads_through(folder: Path) -> None:
    """Changes in memory lie over what is on disk, in reads and in ranges."""
    filled(folder)
    rocks = open_store(folder, STAMP)
    over = Store("x", TableBase(rocks, 1))
    over.delete(b"000010")
    over.put(b"000010a", b"new")
    assert [key for key, _ in over.scan(b"000009", b"000012")] == [b"000009", b"000010a", b"000011"]
    rocks.close()


def test_a_closed_store_says_so(folder: Path) -> None:
    """Closing gives the folder back at once; a later read is an error, not a crash."""
    rocks = open_store(folder, STAMP)
    rocks.close()
    rocks.close()
    with pytest.raises(StoreError, match="closed"):
        rocks.get(b"x")
    open_store(folder, STAMP).close()


def test_a_folder_has_one_owner(folder: Path) -> None:
    """A folder that another process holds is refused and not set aside."""
    rocks = open_store(folder, STAMP)
    with pytest.raises(StoreError, match="another process"):
        open_store(folder, STAMP)
    rocks.close()
    assert not list(folder.parent.glob("*.quarantine-*"))


@pytest.mark.parametrize(
    "other",
    [
        replace(STAMP, cluster="other"), replace(STAMP, source_topic="anew"), replace(STAMP, changelog_topic="anew"),
        replace(STAMP, partitions=3), replace(STAMP, leg="other"), replace(STAMP, partition=1), replace(STAMP, format=9),
    ],
)  # fmt: skip
def test_anothers_folder_is_set_aside(folder: Path, other: Stamp) -> None:
    """A folder of another cluster, topic, partition count, leg, partition or format is never read."""
    filled(folder)
    rocks = open_store(folder, other)
    assert rocks.get(b"\x01000001") is None
    rocks.close()
    assert len(list(folder.parent.glob("count-0.quarantine-*"))) == 1


def test_quarantine_keeps_the_newest_three(folder: Path) -> None:
    """Folders that were set aside do not fill the disk."""
    for _ in range(5):
        open_store(folder, STAMP).close()
        quarantine(folder, "a test")
    assert sorted(one.name for one in folder.parent.iterdir()) == [f"count-0.quarantine-{n}" for n in (3, 4, 5)]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 4, len(data) * 3 // 4, max(1, len(data) // 200)):
        data[at] ^= 0xFF
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [_flip, _truncate, Path.unlink])
@pytest.mark.parametrize("kind", ["*.sst", "*.log", "MANIFEST-*", "CURRENT"])
def test_damage_is_never_read_as_data(folder: Path, kind: str, damage: object) -> None:
    """Whatever is flipped, cut or deleted: each row read is right, or the store is set aside now or at the next start.

    Flipped bits in the write-ahead log may drop everything behind them without an error: then no row is wrong, some
    are missing, and so is the position that was written with them."""
    filled(folder)
    files = sorted(one for one in folder.glob(kind) if one.stat().st_size)
    assert files
    damage(files[-1])  # type: ignore[operator]
    rocks = open_store(folder, STAMP)
    set_aside = bool(list(folder.parent.glob("count-0.quarantine-*")))
    try:
        for i in range(ROWS):
            assert rocks.get(b"\x01%06d" % i) in (None, b"%d" % i * 40)
        held = [rocks.get(b"\x02%06d" % i) for i in range(ROWS)]
        if rocks.get(store.POSITION) is not None:
            assert None not in held, "the position is there and rows of its batch are not"
    except StoreError:
        rocks.close()
        open_store(folder, STAMP).close()
        set_aside = bool(list(folder.parent.glob("count-0.quarantine-*")))
        assert set_aside, "a damaged store was opened again"
    finally:
        rocks.close()


def lived(folder: Path, *lives: int) -> int:
    """Lives of so many batches, each ended by a kill behind its last one; returns how many there were in all."""
    number = 0
    for life, batches in enumerate(lives):
        rocks = open_store(folder, STAMP)
        for _ in range(batches):
            number += 1
            rocks.write([(b"\x01%08d" % number, b"v" * 40), (store.POSITION, b"%d" % number)])
        killed = folder.with_name(f"life-{life}")
        while rocks._handle().property_int_value("rocksdb.num-immutable-mem-table"):
            time.sleep(0.001)
        rocks._handle().cancel_all_background(True)  # no file comes or goes while it is copied
        shutil.copytree(folder, killed)
        rocks.close()
        shutil.rmtree(folder)
        killed.rename(folder)
    return number


def is_a_prefix(folder: Path) -> bool:
    """Whether a damaged folder is set aside, or holds everything up to its position."""
    rocks = open_store(folder, STAMP)
    aside = list(folder.parent.glob(f"{folder.name}.quarantine-*"))
    position = int(rocks.get(store.POSITION) or 0)
    held = [int(key[1:]) for key, _ in rocks.scan(b"\x01", b"\x02")]
    rocks.close()
    for one in aside:
        shutil.rmtree(one)
    assert not aside or not held
    return held == list(range(1, position + 1))


def test_no_hole_is_left_where_the_manifest_lost_its_end(folder: Path) -> None:
    """Cut the MANIFEST anywhere: RocksDB opens an older list of files under the newest write-ahead log, and says nothing."""
    lived(folder, 20, 20, 20)
    manifest = next(folder.glob("MANIFEST-*"))
    copy = folder.with_name("copy")
    for cut in range(0, manifest.stat().st_size, 5):
        shutil.copytree(folder, copy)
        with (copy / manifest.name).open("r+b") as file:
            file.truncate(cut)
        assert is_a_prefix(copy), f"cut at {cut}"
        shutil.rmtree(copy)


@pytest.mark.parametrize("batches", [350, 450, 550, 650])
def test_no_hole_is_left_in_the_middle_of_a_link(folder: Path, monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """A life ends shortly behind a full memtable, so that what it wrote last lies in a file without a link of its own."""
    monkeypatch.setattr(store, "MEMTABLE_BYTES", 64 * 1024)
    monkeypatch.setattr(store, "LINKS_A_MEMTABLE", 1)
    lived(folder, 20, batches, 20)
    manifest = next(folder.glob("MANIFEST-*"))
    data, cut = manifest.read_bytes(), 0
    copy = folder.with_name("copy")
    while cut < len(data):  # crc(4) length(2) type(1) edit
        shutil.copytree(folder, copy)
        (copy / manifest.name).write_bytes(data[:cut])
        assert is_a_prefix(copy), f"cut at {cut} of {len(data)}"
        shutil.rmtree(copy)
        cut += 7 + int.from_bytes(data[cut + 4 : cut + 6], "little")


def test_no_hole_is_left_by_any_lost_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a store whose memtables were flushed many times, each file is deleted in turn; whole, it is not set aside."""
    monkeypatch.setattr(store, "MEMTABLE_BYTES", 64 * 1024)
    number = lived(folder, 4000, 4000, 4000)
    rocks = open_store(folder, STAMP)
    assert rocks.get(store.POSITION) == b"%d" % number
    rocks._handle().cancel_all_background(True)
    killed, copy = folder.with_name("killed"), folder.with_name("copy")
    shutil.copytree(folder, killed)
    rocks.close()
    assert not list(folder.parent.glob("*.quarantine-*"))
    for lost in [one.name for one in killed.iterdir() if one.suffix in (".sst", ".log")]:
        shutil.copytree(killed, copy)
        (copy / lost).unlink()
        assert is_a_prefix(copy), lost
        shutil.rmtree(copy)


def test_a_scan_over_damage_is_an_error(folder: Path) -> None:
    """Whichever block of a sorted file is damaged, a scan gives all of its rows or raises: it never ends early."""
    filled(folder)
    copy = folder.with_name("copy")
    file = max(folder.glob("*.sst"), key=lambda one: one.stat().st_size)
    whole = file.read_bytes()
    raised = 0
    for at in range(len(whole) // 20, len(whole) * 4 // 5, len(whole) // 20):
        shutil.copytree(folder, copy)
        (copy / file.name).write_bytes(whole[:at] + bytes((whole[at] ^ 0xFF,)) + whole[at + 1 :])
        rocks = open_store(copy, STAMP)
        try:
            assert len(list(rocks.scan(b"\x01", b"\x02"))) == ROWS
        except StoreError:
            raised += 1
        rocks.close()
        shutil.rmtree(copy)
    assert raised > 5


def test_a_batch_is_whole_or_nothing(folder: Path) -> None:
    """Cut the write-ahead log anywhere: of each batch all rows are there or none."""
    rocks = open_store(folder, STAMP)
    for n in range(50):
        rocks.write([(b"\x01%03d-%d" % (n, i), b"v" * 20) for i in range(5)])
    killed, copy = folder.with_name("killed"), folder.with_name("copy")
    shutil.copytree(folder, killed)
    rocks.close()
    log = max(killed.glob("*.log"), key=lambda one: one.stat().st_size)
    whole = log.read_bytes()
    for cut in random.Random(1).sample(range(len(whole)), 15):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(killed, copy)
        (copy / log.name).write_bytes(whole[:cut])
        again = open_store(copy, STAMP)
        for n in range(50):
            assert len(list(again.scan(b"\x01%03d-" % n, b"\x01%03d." % n))) in (0, 5)
        again.close()


def test_stores_share_one_cache(tmp_path: Path) -> None:
    """However many stores are open, there is one block cache."""
    stores = [open_store(tmp_path / str(n), replace(STAMP, partition=n)) for n in range(3)]
    sizes = {one._handle().property_int_value("rocksdb.block-cache-capacity") for one in stores}
    used = {one._handle().property_int_value("rocksdb.block-cache-usage") for one in stores}
    assert sizes == {store.CACHE_BYTES}
    assert len(used) == 1
    for one in stores:
        one.close()


def test_a_note_of_damage_sets_the_folder_aside(folder: Path) -> None:
    """What a read found damaged is not opened again."""
    open_store(folder, STAMP).close()
    store.note_damage(folder, "a test")
    rocks: Rocks = open_store(folder, STAMP)
    rocks.close()
    assert (folder.parent / "count-0.quarantine-1" / "DAMAGED").read_text() == "a test"
