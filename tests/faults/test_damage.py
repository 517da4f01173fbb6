"""F9: damaged, old and foreign state folders: set aside, counted, restored; the digest is that of an undisturbed run."""

from __future__ import annotations

import random
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from milepost.ops.settings import Settings
from milepost.schemas.errors import MilepostError
from tests.faults.conftest import Sized
from tests.support.flights_driver import driver_digest
from tests.support.keeper import control, dealt, firsts, kept
from tests.support.workers import Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SOME = 3000
Damage = Callable[[Path, random.Random], None]


def flip(path: Path, chance: random.Random) -> None:
    """Flip bits all over the file."""
    data = bytearray(path.read_bytes())
    for _ in range(max(1, len(data) // 100)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, chance: random.Random) -> None:
    """Cut the file somewhere in its second half."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(chance.randrange(size // 2, size))


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


# Dealt from the end: an orderly stop leaves no log to damage, so that comes before the first one.
KINDS: dict[str, tuple[str, Damage]] = {
    f"{damage.__name__} {name}": (pattern, damage)
    for name, pattern in (("SST", "*.sst"), ("MANIFEST", "MANIFEST-*"), ("CURRENT", "CURRENT"), ("WAL", "*.log"))
    for damage in (flip, truncate, delete)
}


def quarantined(deployment: Deployment) -> int:
    """Folders set aside in this life, as telemetry counts them."""
    with urllib.request.urlopen(f"{deployment.settings.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(float(one.split()[-1])) for one in lines if one.startswith("milepost_stores_quarantined_total{"))


@pytest.fixture
def deployment(settings: Settings) -> Iterator[Deployment]:
    """A deployment with two thirds of the events settled, two lives old so that there are sorted files and a log, down."""
    with Deployment(settings, partitions=2) as made:
        made.apply()
        made.send(firsts(SOME)[: SOME // 3])
        made.start()
        made.settle()
        assert made.worker.stop() == 0  # closing writes sorted files
        made.send(firsts(SOME)[SOME // 3 : SOME * 2 // 3])
        made.start()
        made.settle()
        made.kill()
        yield made


def it_heals(deployment: Deployment) -> None:
    """The rest of the events is taken, and every table is right."""
    deployment.send(firsts(SOME)[SOME * 2 // 3 : SOME])
    deployment.settle()
    assert deployment.digest() == driver_digest(firsts(SOME))


@dealt("F9", "state damaged, old, foreign", 12, 4)
def test_every_kind_of_damage_is_healed(deployment: Deployment, sized: Sized) -> None:
    """Flipped, cut or deleted files of each kind, in all folders at once, three times: never wrong, never by hand."""
    chance = random.Random(81)
    state = deployment.settings.state
    kinds = list(KINDS.items())[: sized(12, 4)]
    wanted = driver_digest(firsts(SOME)[: SOME * 2 // 3])
    folders = [state / f"{leg}-{number}" for leg in ("ingest", "measure") for number in range(2)]
    while kinds:
        for folder in folders:
            kind, (pattern, damage) = kinds.pop()
            paths = [one for one in sorted(folder.glob(pattern)) if one.stat().st_size]
            assert paths, f"{kind}: nothing to damage in {folder.name}"
            for path in paths:
                damage(path, chance)
        with kept(deployment) as worker:
            read_all(deployment, wanted)
            assert worker.alive
    assert len(list(state.glob("*.quarantine-*"))) >= sized(8, 1)
    deployment.start()
    it_heals(deployment)


def read_all(deployment: Deployment, wanted: dict[str, str]) -> None:
    """Read every row until all are right: flipped bits are found by whoever reads them, and the worker starts again."""
    until = time.monotonic() + 60
    while True:
        try:
            with deployment.worker.client(patience_s=30.0) as client:
                found = client.digest()
        except MilepostError:
            found = {}
        if found == wanted:
            return
        assert time.monotonic() < until, f"it does not heal:\n{deployment.worker.told()}"
        time.sleep(0.3)


@pytest.mark.campaign
@dealt("F9", "state damaged, old, foreign")
def test_an_old_copy_of_the_folders_is_brought_up_to_date(deployment: Deployment) -> None:
    """A copy from before the last thousand events lies in the folders' place: the changelog brings what it lacks."""
    state = deployment.settings.state
    copy = state.with_name("copy")
    shutil.copytree(state, copy)
    deployment.start()
    deployment.send(firsts(SOME)[SOME * 2 // 3 : SOME])
    deployment.settle()
    deployment.kill()
    shutil.rmtree(state)
    copy.rename(state)
    deployment.start()
    deployment.settle()
    assert deployment.digest() == driver_digest(firsts(SOME))
    assert quarantined(deployment) == 0


@pytest.mark.campaign
@dealt("F9", "state damaged, old, foreign", 4)
def test_another_partitions_folder_is_set_aside(deployment: Deployment) -> None:
    """Two folders that changed places are both set aside, counted, and restored."""
    state = deployment.settings.state
    for leg in ("ingest", "measure"):
        (state / f"{leg}-0").rename(state / "aside")
        (state / f"{leg}-1").rename(state / f"{leg}-0")
        (state / "aside").rename(state / f"{leg}-1")
    deployment.start()
    deployment.settle()
    assert quarantined(deployment) == 4
    assert "its stamp is" in deployment.worker.log
    it_heals(deployment)


def lose_end(deployment: Deployment) -> None:
    """Another life that ends in a kill; then the last two edits of measure's MANIFESTs are lost.

    They say that the life before last has become a sorted file, so RocksDB passes over all of it, and plays the last
    life's write-ahead log, position and all, over what was before."""
    deployment.start()
    deployment.send(firsts(SOME)[SOME * 2 // 3 : SOME * 5 // 6])
    deployment.settle()
    deployment.kill()
    for path in deployment.settings.state.glob("measure-?/MANIFEST-*"):
        data, ends = path.read_bytes(), [0]
        while ends[-1] < len(data):  # crc(4) length(2) type(1) edit
            ends.append(ends[-1] + 7 + int.from_bytes(data[ends[-1] + 4 : ends[-1] + 6], "little"))
        path.write_bytes(data[: ends[-3]])


@pytest.mark.campaign
@dealt("F9", "state damaged, old, foreign", 2)
def test_a_hole_between_two_lives_is_restored(deployment: Deployment) -> None:
    """A MANIFEST that lost its end opens without a word and lacks the middle: it is set aside and restored."""
    lose_end(deployment)
    deployment.start()
    deployment.settle()
    assert quarantined(deployment) == 2
    assert "batches are missing between others" in deployment.worker.log
    it_heals(deployment)


@pytest.mark.campaign
@control("hole in a store believed")
def test_a_worker_that_believes_a_hole_is_noticed(deployment: Deployment) -> None:
    """Positive control: without the chain of links the middle is missing, and the digest says so."""
    lose_end(deployment)
    deployment.start(mutant="from milepost.agents import store\nstore.Rocks.broken = lambda self: ''\n")
    deployment.settle()
    wanted, found = driver_digest(firsts(SOME)[: SOME * 5 // 6]), deployment.digest()
    assert {name for name in wanted if found[name] != wanted[name]} > {"total", "cells"}


@pytest.mark.campaign
@control("any stamp believed")
def test_a_worker_that_believes_any_stamp_is_noticed(deployment: Deployment) -> None:
    """Positive control: without the stamp another partition's rows are taken for one's own, and the digest says so."""
    state = deployment.settings.state
    (state / "ingest-0").rename(state / "aside")
    (state / "ingest-1").rename(state / "ingest-0")
    (state / "aside").rename(state / "ingest-1")
    believes = (
        "from milepost.agents import store\nreal = store.Rocks.get\n"
        "store.open_store = lambda folder, stamp: store._try(folder, store.Rdict and _held(folder))[0]\n"
        "def _held(folder):\n"
        "    import json\n    from dataclasses import asdict\n"
        "    db = store.Rdict(str(folder), store._options()) if folder.exists() else None\n"
        "    held = db.get(store.STAMP) if db is not None else None\n    db and db.close()\n"
        "    return held or b'{}'\n"
    )
    deployment.start(mutant=believes, ready=False)
    try:
        deployment.settle(40)
        found = deployment.digest()
    except AssertionError:
        return  # the rows do not even fit: it ends, which is noticed too
    assert found != driver_digest(firsts(SOME)[: SOME * 2 // 3])
