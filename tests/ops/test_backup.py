"""Backup: the runbook's recipe, walked: files, a fresh broker, and every answer as before."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from milepost.ops import backup as backups
from milepost.ops.backup import GAP_KEY, Kept, backup, read_manifest, read_part, restore
from milepost.ops.client import Client
from milepost.ops.demo import settle
from milepost.ops.doctor import _topics
from milepost.ops.reader import plain_consumer, read_to_end, topic_ends
from milepost.ops.settings import Settings
from milepost.ops.supervise import Supervisor
from milepost.schemas import stamps
from milepost.schemas.errors import DeclarationError, StoreError
from tests.support.broker import broker_ports, shared_jars
from tests.support.workers import AT, SRC, Deployment, week

EVENTS = 3_000
ASKED = (("departures", "corrected"), ("departures", "as_shown"), ("on_time_rate", "corrected"))


def quiet(_: str) -> None:
    """Progress that nobody reads."""


def command(settings: Settings, *words: str) -> dict[str, Any]:
    """Run `milepost` as a person would; the JSON that it prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MILEPOST_")}
    env |= {**settings.environment(), "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-m", "milepost", *words, "--json"], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def taken(settings: Settings, tmp_path: Path) -> Iterator[tuple[Settings, Path, dict[str, str], list[Any]]]:
    """A deployment that has taken events, its backup, its digest, and some answers."""
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.start()
        deployment.send(week()[number] for number in range(EVENTS))
        deployment.settle()
        folder = tmp_path / "backups" / "first"
        told = command(deployment.settings, "backup", str(folder))
        assert told["records"] >= EVENTS
        yield deployment.settings, folder, deployment.digest(), answers(deployment.settings)


def answers(settings: Settings) -> list[Any]:
    with Client(settings.url, patience_s=60) as client:
        told = [client.value(metric, at=AT, basis=basis) for metric, basis in ASKED]
    return [(one["value"], one["basis"], one.get("reason")) for one in told]


def parts(folder: Path, topic: str) -> list[list[Kept]]:
    """The records of a topic's files, by partition."""
    found = []
    for one in read_manifest(folder).parts:
        if one.topic == topic:
            with gzip.open(folder / one.file) as file:
                found.append(list(read_part(file)))
    return found


def compact(folder: Path) -> int:
    """What the cleaner would do later: of the ticks only the last of each partition stays.  How many are gone."""
    manifest = msgspec.to_builtins(read_manifest(folder))
    gone = 0
    for part in manifest["parts"]:
        with gzip.open(folder / part["file"]) as file:
            held = list(read_part(file))
        ticks = [one for one in held if (stamp := stamps.find(one.headers)) and stamp[:1] == stamps.TICK]
        kept = [one for one in held if one not in ticks[:-1]]
        gone += len(held) - len(kept)
        with gzip.open(folder / part["file"], "wb") as file:
            for one in kept:
                backups._dump(file, one)
        part |= {"records": len(kept), "sha256": backups._digest(folder / part["file"])}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return gone


@pytest.mark.broker
@pytest.mark.slow
def test_a_restored_deployment_answers_as_before(
    taken: tuple[Settings, Path, dict[str, str], list[Any]], tmp_path: Path
) -> None:
    """backup, a fresh home with a broker of its own, restore, up: digest and answers are those of before.

    The ticks in the backup are thinned out first, so that gaps of compaction are restored, too."""
    original, folder, digest, told = taken
    assert compact(folder) > 0
    broker_port, port = broker_ports()
    fresh = replace(
        original, home=tmp_path / "restored", broker="", broker_port=broker_port, port=port, namespace="",
        jars_folder=shared_jars(),
    )  # fmt: skip
    assert command(fresh, "restore", str(folder))["records"] == read_manifest(folder).records
    with Supervisor(fresh), Client(fresh.url, patience_s=60) as client:
        consumer = plain_consumer(fresh.bootstrap)
        ends = {one.partition: one.end for one in read_manifest(folder).parts if one.topic == "raw-events"}
        held = [list[Any]() for _ in ends]
        for message in read_to_end(consumer, "raw-events", len(ends), stop=ends):
            held[message.partition()].append(message)
        consumer.close()
        for before, after in zip(parts(folder, "raw-events"), held, strict=True):
            same = [one for one in after if one.key() != GAP_KEY]
            assert [(one.offset, one.timestamp_ms, one.key, one.value) for one in before] == [
                (one.offset(), one.timestamp()[1], one.key(), one.value()) for one in same
            ]
            assert len(after) > len(same), "the gaps are filled"
        settle(client, lambda topic: topic_ends(fresh, topic), say=quiet)
        assert client.digest() == digest
        assert answers(fresh) == told
        assert [one.said for one in _topics(fresh)] == [
            "as the line wants them",
            "raw-events is kept from the cleaner for longer",
            "those of port-authority hold",
        ]
        assert command(fresh, "restore", "--finish") == {"finished": True}
        assert [one.said for one in _topics(fresh)] == ["as the line wants them", "those of port-authority hold"]


@pytest.mark.broker
def test_a_restore_refuses_what_would_go_wrong(
    taken: tuple[Settings, Path, dict[str, str], list[Any]], namespace: str, tmp_path: Path
) -> None:
    """A deployment that holds something, another secret, another partition count, and damaged files are refused."""
    original, folder, *_ = taken
    empty = replace(original, namespace=f"{namespace}b", home=tmp_path / "empty")
    with pytest.raises(DeclarationError, match=r"has .*raw-events already.*MILEPOST_NAMESPACE"):
        restore(original, folder, say=quiet)
    with pytest.raises(DeclarationError, match=r"another secret.*MILEPOST_SECRET"):
        restore(replace(empty, secret_text="another secret, as long"), folder, say=quiet)
    with pytest.raises(DeclarationError, match="there is no secret"):
        restore(replace(empty, secret_text=""), folder, say=quiet)
    with pytest.raises(DeclarationError, match=r"4 raw partitions, MILEPOST_PARTITIONS is 2; fix: set it to 4"):
        restore(replace(empty, partitions=2), folder, say=quiet)
    with pytest.raises(DeclarationError, match="not empty"):
        backup(original, folder, say=quiet)
    file = folder / read_manifest(folder).parts[1].file
    data = file.read_bytes()
    file.write_bytes(data[:-40] + bytes(1) + data[-39:])
    with pytest.raises(StoreError, match=f"{file.name} is not what manifest.json says"):
        restore(empty, folder, say=quiet)
    file.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        restore(empty, folder, say=quiet)


def test_a_folder_that_is_no_backup_is_refused(tmp_path: Path) -> None:
    """Without a manifest there is no backup; one of another format names the release that reads it."""
    with pytest.raises(DeclarationError, match=r"holds no manifest\.json"):
        read_manifest(tmp_path)
    told = {"format": 9, "milepost": "7.0", "made": "", "partitions": 1, "secret": "", "parts": []}
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(DeclarationError, match=r"format 9, 1 is expected; fix: .* 7\.0"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DeclarationError, match="is not a manifest"):
        read_manifest(tmp_path)


def test_a_file_that_ends_early_is_noticed(tmp_path: Path) -> None:
    """Records are read as they were written; a file cut in the middle of one is refused."""
    kept = [Kept(4, 17, b"k", b"v" * 1000, [("h", b"x"), ("n", None)]), Kept(9, 18, None, None, [])]
    path = tmp_path / "part"
    with path.open("wb") as file:
        for one in kept:
            backups._dump(file, one)
    with path.open("rb") as file:
        assert list(read_part(file)) == kept
    for size in (2, 500, path.stat().st_size - 1):
        (tmp_path / "cut").write_bytes(path.read_bytes()[:size])
        with (tmp_path / "cut").open("rb") as file, pytest.raises(StoreError, match="in the middle"):
            list(read_part(file))
