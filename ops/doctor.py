"""Doctor: what a person would look at first when something does not run, each with its fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from milepost.ops import describe, processes, provision, registering
from milepost.ops.apply import attempts, tables
from milepost.ops.broker import java_runtime, read_jars, read_lock
from milepost.ops.registry import read_lock as registry_lock
from milepost.ops.registry_client import FULL_TRANSITIVE, RegistryClient
from milepost.ops.settings import DEMO_SECRET, EMBEDDED, Settings
from milepost.ops.supervise import probe
from milepost.schemas.errors import MilepostError
from milepost.schemas.framing import event_fault
from milepost.topology.lenient import lenient_bundle

Verdict = Literal["ok", "note", "wrong"]

DISK_MIN: Final = 2 * 1024**3
"""Bytes that the demo with its broker, jars and state needs, with room to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at.  `note`: worth knowing; `wrong`: will not run, `fix` says what to do."""

    check: str
    verdict: Verdict
    said: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything looked at, in the order in which a start would meet it."""
    for check in (_python, _packages, _java, _jars, _home, _disk, _secret, _broker, _topics, _registry, _worker):
        yield from check(settings)


def _python(_settings: Settings) -> Iterator[Finding]:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding(check="python", verdict="ok", said=said)
    if platform.system() == "Linux" and platform.machine() in ("aarch64", "arm64"):
        fix = "install a C compiler and Python's headers, so that pip can build faust-streaming"
        yield Finding(check="wheels", verdict="note", said="faust-streaming has no wheel for Linux on arm64", fix=fix)


def _packages(_settings: Settings) -> Iterator[Finding]:
    for name, exact in (("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0")):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(check=name, verdict="wrong", said="not installed", fix="pip install milepost")
            continue
        fix = "" if found == exact else f"pip install {name}=={exact}: its inner seams are used"
        yield Finding(check=name, verdict="wrong" if fix else "ok", said=found, fix=fix)


def _java(settings: Settings) -> Iterator[Finding]:
    if not settings.embedded:
        yield Finding(check="java", verdict="ok", said=f"not needed: the broker is {settings.broker}")
        return
    yield _tried("java", java_runtime)


def _jars(settings: Settings) -> Iterator[Finding]:
    if not settings.embedded:
        return
    lock = read_lock()
    if not (settings.jars / lock.kafka).exists():
        absent = importlib.util.find_spec("jgo") is None
        said = f"Kafka {lock.kafka} is not fetched yet, the first start does it"
        fix = "pip install 'milepost[demo]' (jgo fetches them)" if absent else ""
        yield Finding(check="jars", verdict="wrong" if absent else "note", said=said, fix=fix)
        return

    def checked() -> str:
        read_jars(settings.jars)
        return f"Kafka {lock.kafka}: {len(lock.sha256)} jars as on the list"

    yield _tried("jars", checked)


def _home(settings: Settings) -> Iterator[Finding]:
    there = settings.home
    while not there.exists():
        there = there.parent
    if os.access(there, os.W_OK | os.X_OK):
        yield Finding(check="home", verdict="ok", said=str(settings.home))
    else:
        fix = "give yourself the rights, or set MILEPOST_HOME to a folder of yours"
        yield Finding(check="home", verdict="wrong", said=f"{there} is not writable", fix=fix)


def _disk(settings: Settings) -> Iterator[Finding]:
    there = settings.home
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    said = f"{free / 1024**3:.1f} GiB free under {settings.home}"
    if free < DISK_MIN:
        fix = "free some, or set MILEPOST_HOME to another disk"
        yield Finding(check="disk", verdict="wrong", said=f"{said}, {DISK_MIN / 1024**3:.0f} wanted", fix=fix)
    else:
        yield Finding(check="disk", verdict="ok", said=said)


def _secret(settings: Settings) -> Iterator[Finding]:
    path = settings.secret_file
    if not settings.secret_text and not path.exists():
        yield Finding(check="secret", verdict="note", said=f"none yet; the first start makes {path}")
        return
    try:
        secret = settings.secret()
    except (MilepostError, OSError) as error:
        yield Finding(check="secret", verdict="wrong", said=str(error), fix="put the organisation's secret back")
        return
    where = "MILEPOST_SECRET" if settings.secret_text else str(path)
    if secret == DEMO_SECRET.encode():
        fix = "use another home, with a secret of your own, for data that matters"
        yield Finding(check="secret", verdict="note", said=f"{where} is the demo's: fixed and public", fix=fix)
    elif not settings.secret_text and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding(check="secret", verdict="wrong", said=f"{path} is readable by others", fix=f"chmod 600 {path}")
    else:
        yield Finding(check="secret", verdict="ok", said=where)


def _broker(settings: Settings) -> Iterator[Finding]:
    try:
        cluster = provision.cluster_id(settings)
    except MilepostError as error:
        if settings.embedded:
            yield from _ports(settings)
        else:
            fix = "start the cluster, or correct MILEPOST_BROKER"
            yield Finding(check="broker", verdict="wrong", said=f"{settings.broker}: {error}", fix=fix)
        return
    own = settings.home / "broker" / "cluster-id"
    if settings.embedded and (not own.exists() or own.read_text().strip() != cluster):
        fix = "stop it, choose another MILEPOST_BROKER_PORT, or use it with MILEPOST_BROKER"
        said = f"{settings.bootstrap} answers as cluster {cluster}, which is not this home's"
        yield Finding(check="broker", verdict="wrong", said=said, fix=fix)
    else:
        yield Finding(check="broker", verdict="ok", said=f"{settings.bootstrap} answers, cluster {cluster}")


def _ports(settings: Settings) -> Iterator[Finding]:
    wrong = [port for port in (settings.broker_port, settings.broker_port + 1) if processes.taken(port)]
    if wrong:
        fix = "stop what listens there, or choose another MILEPOST_BROKER_PORT"
        yield Finding(check="ports", verdict="wrong", said=f"port {wrong[0]} is taken, and not by Kafka", fix=fix)
    else:
        said = f"{settings.broker_port} and {settings.broker_port + 1} are free"
        yield Finding(check="ports", verdict="ok", said=said)
        yield Finding(check="broker", verdict="note", said="not running; `milepost up` starts it")


def _topics(settings: Settings) -> Iterator[Finding]:
    try:
        wrong = describe.broker_differences(settings)
    except MilepostError:
        return  # no broker: said above
    if not wrong:
        yield Finding(check="topics", verdict="ok", said="as the line wants them")
    for name in describe.held_topics(settings):
        fix = "`milepost restore --finish` once the worker has taken all, or set it back"
        yield Finding(check="topics", verdict="note", said=f"{name} is kept from the cleaner for longer", fix=fix)
    for said in wrong:
        text, _, fix = said.partition("; fix: ")
        absent = text.endswith("is not at the broker")
        yield Finding(check="topics", verdict="note" if absent else "wrong", said=text, fix=fix)
    if not any(f"{settings.topic('definitions')} is not at the broker" in said for said in wrong):
        yield from _definitions(settings)


def _definitions(settings: Settings) -> Iterator[Finding]:
    """Whether the bundles in force hold in this release: an older one may have applied them."""
    try:
        last = {one.org: one.files for one in attempts(settings)}
    except MilepostError as error:
        yield Finding(check="definitions", verdict="wrong", said=str(error), fix="start the broker, then look again")
        return
    for org, files in sorted(last.items()):
        left = lenient_bundle(files).left_out
        if left:
            fix = "mend them (`milepost plan` says each with its fix), and apply the bundle again"
            said = f"of {org}, {len(left)} parts are left out, for this release refuses them; the first: {left[0]}"
            yield Finding(check="definitions", verdict="wrong", said=said, fix=fix)
        else:
            yield Finding(check="definitions", verdict="ok", said=f"those of {org} hold")


def _registry(settings: Settings) -> Iterator[Finding]:
    if not settings.registry:
        yield Finding(check="registry", verdict="ok", said="none is configured (MILEPOST_REGISTRY)")
        return
    if settings.registry == EMBEDDED and not processes.answers(settings.registry_port):
        there = (settings.jars / f"apicurio-{registry_lock().version}").exists()
        said = "not running; `milepost up --registry` starts it" + ("" if there else ", after fetching it once")
        yield Finding(check="registry", verdict="note", said=said)
        return
    try:
        yield from _registered(settings)
    except MilepostError as error:
        said, _, fix = str(error).partition("; fix: ")
        fix = fix or "see what listens there, or correct MILEPOST_REGISTRY"
        yield Finding(check="registry", verdict="wrong", said=said, fix=fix)


def _registered(settings: Settings) -> Iterator[Finding]:
    """Whether the registry answers as one, keeps our subjects as they must be, and means what the log says."""
    subject = registering.event_subject(settings)
    with RegistryClient(settings.registry_url, patience_s=5) as client:
        level = client.compatibility(subject)
        versions = client.versions(subject)
    known = tables(settings)
    if versions and level != FULL_TRANSITIVE:
        fix = "`milepost apply` sets it; ask who changed it"
        yield Finding(check="registry", verdict="wrong", said=f"{subject} is {level or 'at no level'}", fix=fix)
        return
    registering.joined(known, [one for one in versions if not event_fault(one.text)])
    said = f"{settings.registry_url} answers, {len(known.schemas)} ids stand in the log"
    yield Finding(check="registry", verdict="ok", said=said)
    for one in versions:
        if why := event_fault(one.text):
            fix = "nothing of it is taken: its sender needs the fields of RawEvent (milepost describe)"
            said = f"{subject} version {one.version} (id {one.id}) stands for no event: {why}"
            yield Finding(check="registry", verdict="note", said=said, fix=fix)
        elif one.id not in known.schemas:
            fix = "`milepost apply` again; what came framed with it before is a dead letter until it is sent again"
            said = f"{subject} version {one.version} (id {one.id}) is not in the log yet: unknown_schema"
            yield Finding(check="registry", verdict="note", said=said, fix=fix)


def _worker(settings: Settings) -> Iterator[Finding]:
    status = probe(settings, "/readyz")
    if status == 200:
        yield Finding(check="worker", verdict="ok", said=f"{settings.url} is ready")
    elif status:
        said = f"{settings.url} answers {status}: restoring, or not ready"
        yield Finding(check="worker", verdict="note", said=said, fix=f"see {settings.url}/readyz")
    elif processes.taken(settings.port, settings.host):
        fix = "stop what listens there, or choose another MILEPOST_PORT"
        yield Finding(check="worker", verdict="wrong", said=f"port {settings.port} is taken by another", fix=fix)
    else:
        yield Finding(check="worker", verdict="note", said="not running; `milepost up` starts it")


def _tried(check: str, what: Callable[[], str]) -> Finding:
    try:
        return Finding(check=check, verdict="ok", said=what())
    except MilepostError as error:
        said, _, fix = str(error).partition("; fix: ")
        return Finding(check=check, verdict="wrong", said=said, fix=fix)
