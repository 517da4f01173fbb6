"""The embedded broker: checked jars, refused ports, the same data at the second start, no process left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from milepost.ops import processes
from milepost.ops.broker import EmbeddedBroker, JarLock, new_cluster_id, read_jars, read_lock
from milepost.schemas.errors import DeclarationError
from tests.support.broker import shared_jars


def test_a_second_start_finds_the_same_data_on_other_ports(tmp_path: Path) -> None:
    """Topics and cluster id outlive a stop, whatever ports the next start takes, and no process stays."""
    with EmbeddedBroker(tmp_path, jars=shared_jars()) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic("kept", 3, 1)])["kept"].result(timeout=10)
        first, cluster = broker.process, admin.list_topics(timeout=5).cluster_id
    assert first is not None and first.poll() is not None
    assert not processes.answers(broker.port)
    with EmbeddedBroker(tmp_path, jars=shared_jars()) as again:
        metadata = AdminClient({"bootstrap.servers": again.bootstrap, "log_level": 0}).list_topics(timeout=5)
        assert len(metadata.topics["kept"].partitions) == 3
        assert metadata.cluster_id == cluster
        with pytest.raises(DeclarationError, match="another milepost already runs a broker"):
            EmbeddedBroker(tmp_path, jars=shared_jars()).start()


def test_a_broker_does_not_outlive_its_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the process that started the broker ends the broker too."""
    code = (
        "import sys, time, pathlib; from milepost.ops.broker import EmbeddedBroker\n"
        "b = EmbeddedBroker(pathlib.Path(sys.argv[1]), jars=pathlib.Path(sys.argv[2])); b.start()\n"
        "print(b.port, b.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(shared_jars())],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    port, _pid = map(int, parent.stdout.readline().split())
    assert processes.answers(port)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 15
    while processes.answers(port) and time.monotonic() < end:
        time.sleep(0.1)
    assert not processes.answers(port)


def test_a_taken_port_is_refused_with_the_fix(tmp_path: Path) -> None:
    """A port that someone listens on is named, together with what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DeclarationError, match=rf"port {port} is taken.*fix:.*--broker-port"):
            EmbeddedBroker(tmp_path, port, jars=shared_jars()).start()


@pytest.mark.parametrize("damage", ["flip", "missing", "extra"])
def test_jars_that_differ_from_the_list_are_refused(tmp_path: Path, damage: str) -> None:
    """One flipped bit, one missing or one additional jar: the broker is not started."""
    there = tmp_path / "9.9"
    there.mkdir()
    (there / "a.jar").write_bytes(b"jar a")
    (there / "b.jar").write_bytes(b"jar b")
    listed = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there.iterdir()}
    lock = JarLock(kafka="9.9", endpoint="none:none:9.9", sha256=listed)
    assert read_jars(tmp_path, lock=lock).count(".jar") == 2
    if damage == "flip":
        (there / "a.jar").write_bytes(b"jar A")
    elif damage == "missing":
        (there / "b.jar").unlink()
    else:
        (there / "c.jar").write_bytes(b"jar c")
    with pytest.raises(
        DeclarationError, match=r"differ from the committed list, the broker is not started.*fix: delete"
    ):
        read_jars(tmp_path, lock=lock)


def test_the_committed_list_names_every_jar_by_hash() -> None:
    """The list pins the version of the broker and 64 hex digits a jar."""
    lock = read_lock()
    assert lock.kafka == "4.3.1" and f":{lock.kafka}" in lock.endpoint
    assert len(lock.sha256) == 46
    assert all(len(digest) == 64 and int(digest, 16) for digest in lock.sha256.values())


def test_kafka_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A broker that stops at once is reported with the end of its log, and leaves no process."""
    broker = EmbeddedBroker(tmp_path, jars=shared_jars(), properties={"num.network.threads": "zero"})
    with pytest.raises(DeclarationError, match=r"num\.network\.threads"):
        broker.start()
    assert not broker.running


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    """An id that would begin with a hyphen is drawn again: the storage tool would read it as an option."""
    drawn = iter([bytes([0xF8]) + bytes(15), bytes([0xFB]) + bytes(15), bytes([0x04]) + bytes(15)])
    assert new_cluster_id(lambda: next(drawn)) == "BAAAAAAAAAAAAAAAAAAAAA"
