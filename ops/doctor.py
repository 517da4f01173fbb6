"""Doctor: what a person would look at first when something does not run, each with its fix.

    machine      python, packages, java and the broker's jars, home, disk, secret
    what runs    broker or its ports, topics, definitions, worker, clocks

What is not running is a note, not a fault; what cannot run, or runs wrongly, is `wrong`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final, Literal

from milepost import __version__
from milepost.ops import describe, processes, provision, registering
from milepost.ops.access import bearer
from milepost.ops.apply import attempts, tables
from milepost.ops.broker import java_runtime, read_jars, read_lock
from milepost.ops.client import Client, Refused
from milepost.ops.registry import read_lock as registry_lock
from milepost.ops.registry_client import FULL_TRANSITIVE, RegistryClient
from milepost.ops.settings import DEMO_SECRET, EMBEDDED, Settings
from milepost.ops.supervise import probe
from milepost.schemas.errors import MilepostError
from milepost.schemas.framing import event_fault
from milepost.topology.bases import written
from milepost.topology.lenient import lenient_bundle

Verdict = Literal["ok", "note", "wrong"]

DISK_MIN: Final = 2 * 1024**3
"""Bytes that the demo with its broker, jars and state needs, with room to spare."""
EXACT: Final = (("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0"))
"""Packages whose inner seams are used, and the versions that have them."""
WRITTEN_MS: Final = 1_767_225_600_000
"""2026-01-01: a clock that shows less is not set, for this was written later."""
SKEW_S_MAX: Final = 5.0
"""How far two clocks may differ, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at.  `note`: worth knowing; `wrong`: will not run, `fix` says what to do."""

    check: str
    verdict: Verdict
    said: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything looked at, in the order in which a start would meet it."""
    for check in (_python, _packages, _java, _jars, _home, _disk, _secret):
        yield from check(settings)
    try:
        cluster, why = provision.cluster_id(settings), ""
    except MilepostError as error:
        cluster, why = "", str(error)
    yield from _broker(settings, cluster, why)
    if cluster:
        yield from _topics(settings)
    yield from _registry(settings)
    yield from _worker(settings)
    yield from _clock(settings, broker=bool(cluster))


def _python(_settings: Settings) -> Iterator[Finding]:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding(check="python", verdict="ok", said=said)
    if platform.system() == "Linux" and platform.machine() in ("aarch64", "arm64"):
        fix = "install a C compiler and Python's headers, so that pip can build faust-streaming"
        yield Finding(check="wheels", verdict="note", said="faust-streaming has no wheel for Linux on arm64", fix=fix)


def _packages(_settings: Settings) -> Iterator[Finding]:
    for name, exact in EXACT:
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
    except MilepostError as error:
        said, _, fix = str(error).partition("; fix: ")
        yield Finding(check="secret", verdict="wrong", said=said, fix=fix)
        return
    except OSError as error:
        fix = f"give yourself the right to read it, and nobody else: chmod 600 {path}"
        yield Finding(check="secret", verdict="wrong", said=f"{path} cannot be read: {error.strerror}", fix=fix)
        return
    where = "MILEPOST_SECRET" if settings.secret_text else str(path)
    if secret == DEMO_SECRET.encode():
        fix = "use another home, with a secret of your own, for data that matters"
        yield Finding(check="secret", verdict="note", said=f"{where} is the demo's: fixed and public", fix=fix)
    elif not settings.secret_text and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding(check="secret", verdict="wrong", said=f"{path} is readable by others", fix=f"chmod 600 {path}")
    else:
        yield Finding(check="secret", verdict="ok", said=where)


def _broker(settings: Settings, cluster: str, why: str) -> Iterator[Finding]:
    """cluster: the id of the one that answers;  why: none does"""
    if not cluster and settings.embedded:
        yield from _ports(settings)
        return
    if not cluster:
        said, _, fix = why.partition("; fix: ")
        yield Finding(check="broker", verdict="wrong", said=said, fix=fix)
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
    if status == HTTPStatus.OK:
        yield _same_version(settings)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        said = f"{settings.url} restores or starts, and does not answer yet"
        yield Finding(check="worker", verdict="note", said=said, fix=f"wait; {settings.url}/readyz says for what")
    elif status or processes.taken(settings.port, settings.host):
        fix = "stop what listens there, or choose another MILEPOST_PORT"
        yield Finding(check="worker", verdict="wrong", said=f"port {settings.port} is taken by another", fix=fix)
    else:
        yield Finding(check="worker", verdict="note", said="not running; `milepost up` starts it")


def _same_version(settings: Settings) -> Finding:
    try:
        with Client(settings.url, token=lambda: bearer(settings), patience_s=0.0) as client:
            runs = client.get("/v1/status").get("version")
    except MilepostError as error:
        if isinstance(error, Refused) and error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            fix = "set MILEPOST_TOKEN to a token that may read, or MILEPOST_HOME to the home with the worker's secret"
            return Finding(check="worker", verdict="wrong", said=f"{settings.url} does not let us in", fix=fix)
        fix = f"look into {settings.home / 'log' / settings.worker}.log"
        return Finding(check="worker", verdict="wrong", said=f"{settings.url} is ready, and says: {error}", fix=fix)
    if runs != __version__:
        said = f"{settings.url} runs version {runs or 'before 0.1.0'}, these commands are {__version__}"
        return Finding(check="worker", verdict="wrong", said=said, fix="start the worker again, from this installation")
    return Finding(check="worker", verdict="ok", said=f"{settings.url} is ready, version {runs}")


def _clock(settings: Settings, *, broker: bool) -> Iterator[Finding]:
    """Known time is the broker's clock, and what is late is judged by the worker's."""
    now_ms = time.time_ns() // 1_000_000
    if now_ms < WRITTEN_MS:
        said = f"this machine's says {written(now_ms)}"
        yield Finding(check="clock", verdict="wrong", said=said, fix="set it: `timedatectl set-ntp true`")
        return
    others = {
        "the newest record's": _newest_ms(settings) if broker else None,
        f"the worker's ({settings.url})": _worker_ms(settings),
    }
    wrong = False
    for whose, at_ms in others.items():
        # A record may be old; it cannot be from the future.  A worker's clock may err both ways.
        ahead_s = 0.0 if at_ms is None else (at_ms - now_ms) / 1000
        if ahead_s > SKEW_S_MAX or (ahead_s < -SKEW_S_MAX and whose.startswith("the worker")):
            wrong = True
            way = "ahead of" if ahead_s > 0 else "behind"
            said = f"{whose} time is {abs(ahead_s):,.0f} s {way} this machine's clock"
            fix = "set both clocks: `timedatectl set-ntp true`; events until then count as known when they were not"
            yield Finding(check="clock", verdict="wrong", said=said, fix=fix)
    if not wrong:
        compared = [whose for whose, at_ms in others.items() if at_ms is not None]
        against = f"agrees with {' and '.join(compared)}" if compared else "nothing runs that it could be held against"
        yield Finding(check="clock", verdict="ok", said=f"{written(now_ms)}; {against}")


def _newest_ms(settings: Settings) -> int | None:
    """When the newest record of the raw log was appended, by the broker's clock."""
    try:
        return provision.newest_ms(settings, "raw-events")
    except MilepostError:
        return None  # no broker, or no topic: said above


def _worker_ms(settings: Settings) -> int | None:
    """What the worker's clock says, to the second; None when none answers."""
    parts = urllib.parse.urlsplit(settings.url)
    try:
        with contextlib.closing(HTTPConnection(parts.hostname or "", parts.port, timeout=2)) as connection:
            connection.request("GET", "/healthz")
            said = connection.getresponse().getheader("Date")
        return None if said is None else int(parsedate_to_datetime(said).timestamp() * 1000)
    except (OSError, HTTPException, ValueError):
        return None


def _tried(check: str, what: Callable[[], str]) -> Finding:
    try:
        return Finding(check=check, verdict="ok", said=what())
    except MilepostError as error:
        said, _, fix = str(error).partition("; fix: ")
        return Finding(check=check, verdict="wrong", said=said, fix=fix)
