"""The real registry: started, filled by apply, agreed with about what breaks; and the line when it is away."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from milepost.ops import doctor, processes, registry_client
from milepost.ops.apply import apply_bundle, attempts, plan_bundle, tables
from milepost.ops.processes import free_ports
from milepost.ops.provision import provision
from milepost.ops.reader import plain_consumer, read_to_end
from milepost.ops.registering import event_subject, subjects
from milepost.ops.registry import EmbeddedRegistry, RegistryLock, read_registry
from milepost.ops.registry_client import FULL_TRANSITIVE, Incompatible, RegistryClient
from milepost.ops.registry_keeper import RegistryKeeper
from milepost.ops.settings import Settings
from milepost.ops.tail import beginning, tail
from milepost.schemas.errors import BundleError, DeclarationError, StoreError
from milepost.schemas.keys import raw_place
from milepost.schemas.serde import wire
from tests.ops.test_breaking import edited
from tests.support import framed
from tests.support.broker import shared_jars
from tests.support.evolutions import EVOLUTIONS
from tests.support.proxy import Mode, Proxy
from tests.support.registry import needed, running_registry
from tests.support.small import FILES, ORG, T0, visit
from tests.support.workers import Deployment

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def registry() -> Iterator[EmbeddedRegistry]:
    with running_registry() as running:
        yield running


@pytest.fixture
def registered(settings: Settings, registry: EmbeddedRegistry) -> Settings:
    """Settings with topics, and the registry."""
    provision(settings)
    return replace(settings, registry=registry.url)


def raw(settings: Settings) -> list[Any]:
    consumer = plain_consumer(settings.bootstrap)
    try:
        return list(read_to_end(consumer, settings.topic("raw-events"), settings.partitions))
    finally:
        consumer.close()


def put(deployment: Deployment, events: list[dict[str, Any]], id: int) -> None:
    """Framed events, where they belong, as a producer with a serializer sends them."""
    records = []
    for event in events:
        key, place = raw_place(event["org"], event["source"], event["id"], 0, 0, deployment.settings.partitions)
        records.append((place, key, b"\0" + id.to_bytes(4, "big") + framed.avro(event)))
    deployment.put("raw-events", records)


def test_ids_mean_the_same_at_the_next_start_on_any_port(tmp_path: Path) -> None:
    """What was registered is there after a stop, FULL_TRANSITIVE, on the loopback alone; no process stays, also of a
    killed one."""
    needed()
    text = json.dumps(wire("RawEvent").json)
    with EmbeddedRegistry(tmp_path, jars=shared_jars()) as first:
        with RegistryClient(first.url) as client:
            id = client.register("a-value", text)
            assert client.compatibility("a-value") == FULL_TRANSITIVE
        with pytest.raises(DeclarationError, match="another milepost already runs a registry"):
            EmbeddedRegistry(tmp_path, jars=shared_jars()).start()
        with pytest.raises(DeclarationError, match=rf"port {first.port} is taken.*MILEPOST_REGISTRY_PORT"):
            EmbeddedRegistry(tmp_path / "other", first.port, jars=shared_jars()).start()
        assert first.process is not None
        listening = [one for one in psutil.Process(first.process.pid).net_connections() if one.status == "LISTEN"]
        assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}
        first.process.kill()
        first.process.wait()
    assert not processes.answers(first.port)
    with EmbeddedRegistry(tmp_path, jars=shared_jars()) as again, RegistryClient(again.url) as client:
        assert client.register("a-value", text) == id and client.schema(id) is not None


def test_files_that_differ_from_the_list_are_refused(tmp_path: Path) -> None:
    """One other byte, one file more or less: it is not started."""
    there = tmp_path / "apicurio-9"
    (there / "lib").mkdir(parents=True)
    (there / "lib" / "a.jar").write_bytes(b"a")
    listed = {"lib/a.jar": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}
    lock = RegistryLock(version="9", artefact=("g", "n", "c", "p"), archive="", runs="lib/a.jar", sha256=listed)
    assert read_registry(tmp_path, lock=lock) == there
    for name, content, said in (
        ("lib/a.jar", b"b", "other bytes"), ("lib/b.jar", b"b", "not on the list"), ("lib/a.jar", None, "missing"),
    ):  # fmt: skip
        path = there / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content) if content is not None else path.unlink()
        with pytest.raises(DeclarationError, match=f"{name}: {said}.*fix: delete"):
            read_registry(tmp_path, lock=lock)
        path.write_bytes(before) if before is not None else path.unlink()


def test_the_registry_and_we_agree_on_what_breaks(registry: EmbeddedRegistry) -> None:
    """Forty changes of a contract, each after its first version: the registry takes those that it should, and refuses
    the others in the check and when they are registered all the same."""
    with RegistryClient(registry.url, patience_s=300) as client:
        for number, one in enumerate(EVOLUTIONS):
            subject = f"evolution-{number}"
            client.register(subject, one.old)
            taken = True
            try:
                client.check(subject, one.new)
            except Incompatible:
                taken = False
            assert taken == one.registry, one.name
            if not taken:
                with pytest.raises(Incompatible):
                    client.register(subject, one.new)
                assert len(client.versions(subject)) == 1


def test_apply_registers_all_contracts_and_writes_what_their_ids_mean(registered: Settings) -> None:
    """Each subject is FULL_TRANSITIVE, the log holds a table of all ids with a marker in every partition, and a second
    apply writes nothing; a schema that others register is taken by the next one."""
    first = apply_bundle(registered, FILES, ORG)
    known = tables(registered)
    wanted = subjects(registered, ORG, FILES)
    assert first.changed and {one.subject for one in known.schemas.values()} == wanted.keys()
    markers = [one.partition() for one in raw(registered) if one.value() == known.id]
    assert sorted(markers) == list(range(registered.partitions))
    with RegistryClient(registered.registry_url) as client:
        assert {client.compatibility(one) for one in wanted} == {FULL_TRANSITIVE}
        before = len(raw(registered))
        assert not apply_bundle(registered, FILES, ORG).changed
        assert tables(registered).id == known.id and len(raw(registered)) == before
        wider = json.dumps(framed.SCHEMAS[framed.WIDER])
        id = client.register(event_subject(registered), wider)
        assert any(f"id {id}" in one.said and one.verdict == "note" for one in doctor.examine(registered))
        apply_bundle(registered, FILES, ORG)
    assert tables(registered).schemas.keys() == known.schemas.keys() | {id}
    (found,) = [one for one in doctor.examine(registered) if one.check == "registry"]
    assert found.verdict == "ok" and f"{len(known.schemas) + 1} ids" in found.said


def test_a_contract_made_incompatible_is_refused_and_leaves_nothing(registered: Settings) -> None:
    """By the log's versions with all that it would break; by the registry's where only it knows a version.  Neither
    leaves a bundle, a table or a version behind."""
    apply_bundle(registered, FILES, ORG)
    before, count = tables(registered).id, len(list(attempts(registered)))
    for call in (plan_bundle, apply_bundle):
        with pytest.raises(BundleError, match=r"data\.minutes.*signal visited.*metric visits"):
            call(registered, edited(FILES, "Visit", minutes={"type": "string"}), ORG)
    with RegistryClient(registered.registry_url) as client:
        subject = registered.topic(f"{ORG}.Visit")
        text = edited(FILES, "Visit", seats={"type": "long", "default": 0})["schemas/Visit.avsc"].decode()
        client.register(subject, text)
        other = edited(FILES, "Visit", seats={"type": "string", "default": ""})
        for call in (plan_bundle, apply_bundle):
            with pytest.raises(Incompatible, match=r"Visit.*seats: long is written, string is read"):
                call(registered, other, ORG)
        assert len(client.versions(subject)) == 2
    assert tables(registered).id == before and len(list(attempts(registered))) == count


@pytest.mark.campaign
def test_another_registry_than_the_log_knows_is_refused(registered: Settings, tmp_path: Path) -> None:
    """Its ids mean other things: nothing is applied, and the fix is said."""
    apply_bundle(registered, FILES, ORG)
    taken = min(tables(registered).schemas)
    with EmbeddedRegistry(tmp_path, jars=shared_jars()) as other:
        with RegistryClient(other.url, patience_s=120) as client:
            for number in range(10_000):  # ids count up from 1: until one is what the log knows as ours
                name = {"type": "enum", "name": f"E{number}", "symbols": ["A"]}
                if client.register(f"somebody-else-{number}", json.dumps(name)) >= taken:
                    break
        with pytest.raises(DeclarationError, match=r"does not go with the log.*bring back the registry"):
            apply_bundle(replace(registered, registry=other.url), FILES, ORG)
    assert len(list(attempts(registered))) == 1


@pytest.mark.parametrize(
    "mode", ["refused", "black_hole", "half_open", "reset", pytest.param("slow", marks=pytest.mark.campaign)]
)
def test_an_apply_without_the_registry_says_so_and_changes_nothing(
    registered: Settings, registry: EmbeddedRegistry, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down or silent: an error with the fix within the time.  Slow: it is done.  Cut off again and again: the one or the
    other, as it comes between two cuts.  Nothing is half done, and once the network is healed the same apply is whole."""
    monkeypatch.setattr(registry_client, "PATIENCE_S", 60.0 if mode == "slow" else 3.0)
    monkeypatch.setattr(registry_client, "ANSWER_S", 1.0)
    (port,) = free_ports(1)
    with Proxy(registry.port, port) as proxy:
        settings = replace(registered, registry=registry.url.replace(str(registry.port), str(port)))
        proxy.set(mode)
        begun = time.monotonic()
        try:
            done = apply_bundle(settings, FILES, ORG).changed
        except StoreError as error:
            done = False
            assert re.search(r"schema registry.*does not answer.*fix:", str(error))
            assert time.monotonic() - begun < 20
            assert not list(attempts(settings)) and not tables(settings).schemas and not raw(settings)
        assert mode == "reset" or done == (mode == "slow")
        proxy.set("open")
        monkeypatch.setattr(registry_client, "PATIENCE_S", 60.0)
        apply_bundle(settings, FILES, ORG)
    assert len(list(attempts(settings))) == 1 and tables(settings).schemas


def test_a_line_loses_nothing_while_the_registry_is_away(settings: Settings, registry: EmbeddedRegistry) -> None:
    """Framed events count as JSON does, before, while and after the registry is away, also in a worker that starts
    anew meanwhile; an id that nobody registered is a dead letter, and its resend counts after the next apply."""
    (port,) = free_ports(1)
    url = registry.url.replace(str(registry.port), str(port))
    with Deployment(settings, registry=url) as deployment, Proxy(registry.port, port) as proxy:
        apply_bundle(deployment.settings, FILES, ORG)
        known = tables(deployment.settings).schemas.values()
        (id,) = [one.id for one in known if one.subject == event_subject(deployment.settings)]
        deployment.start()
        put(deployment, [visit(f"before{n}", T0 + n) for n in range(200)], id)
        proxy.set("refused")
        put(deployment, [visit(f"while{n}", T0 + n) for n in range(200)], id)
        deployment.kill()
        put(deployment, [visit(f"killed{n}", T0 + n) for n in range(200)], id)
        deployment.start()
        put(deployment, [visit("unknown", T0)], id + 9999)
        deployment.settle()
        with deployment.worker.client() as client:
            assert client.value("visits")["value"] == 600
            (letter,) = client.get("/v1/dead-letters")["problems"]
            assert letter["reason"] == "unknown_schema"
        found = {one.check: one for one in doctor.examine(deployment.settings)}["registry"]
        assert found.verdict == "wrong" and "up --registry" in found.fix
        proxy.set("open")
        put(deployment, [visit("unknown", T0)], id)
        deployment.settle()
        with deployment.worker.client() as client:
            assert client.value("visits")["value"] == 601
        values = [
            line["value"] for line in tail(deployment.settings, "raw-events", begin=beginning("start"), wait=False)
        ]
        shown = [value for value in values if value.get("schema") == id]
        assert len(shown) == 601 and {value["contract"] for value in shown} == {"RawEvent"}


@pytest.mark.campaign
def test_a_registry_that_ends_is_started_again(tmp_path: Path) -> None:
    """Killed under the keeper it comes back with its data; stopped it stays away."""
    needed()
    (port,) = free_ports(1)
    told: list[str] = []
    keeper = RegistryKeeper(EmbeddedRegistry(tmp_path, port, jars=shared_jars()), say=told.append)
    keeper.start()
    try:
        with RegistryClient(keeper.registry.url) as client:
            id = client.register("a-value", json.dumps(wire("Tick").json))
        assert keeper.registry.process is not None
        os.kill(keeper.registry.process.pid, signal.SIGKILL)
        end = time.monotonic() + 90
        while keeper.restarts == 0 or not keeper.registry.running or not processes.answers(port):
            assert time.monotonic() < end, told
            time.sleep(0.1)
        with RegistryClient(keeper.registry.url) as client:
            assert client.register("a-value", json.dumps(wire("Tick").json)) == id
    finally:
        keeper.stop()
    assert any("the registry ended; starting it again" in line for line in told)
    assert not processes.answers(port) and threading.active_count() < 20


def test_a_registry_that_cannot_start_is_said_at_once(tmp_path: Path) -> None:
    """The first start's failure is the caller's; nothing is left running."""
    needed()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        keeper = RegistryKeeper(EmbeddedRegistry(tmp_path, other.getsockname()[1], jars=shared_jars()))
        with pytest.raises(DeclarationError, match="is taken"):
            keeper.start()
        keeper.stop()
