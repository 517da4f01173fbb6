"""The import puts each event where it belongs, says when it was known, and sends nothing that the log holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from milepost.ops import imports
from milepost.ops.flights import ORG, Flights, read_flights
from milepost.ops.imports import import_flights
from milepost.ops.provision import provision
from milepost.ops.reader import plain_consumer, read_to_end
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.schemas.keys import org_key, raw_place

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Flights:
    """The first 400 flights of the year."""
    folder = tmp_path_factory.mktemp("few")
    week = read_flights(week=True)
    head = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
    rows = [line.decode() for line in week.file.lines[:400]]
    (folder / "flights.csv").write_text(
        "\n".join([head + "origin,dest,air_time,distance,hour,minute,time_hour", *rows])
    )
    return read_flights(folder)


@pytest.fixture
def provisioned(settings: Settings) -> Settings:
    provision(settings)
    return settings


def test_each_event_lies_in_its_place_with_its_known_time(provisioned: Settings, few: Flights) -> None:
    """Every record has its raw key, its partition, the event's body, and a stamp that says k under a right MAC."""
    done = import_flights(provisioned, few, say=silent)
    assert (done.events, done.held) == (len(few), 0)
    assert done.sent == len(few) + round(len(few) * 0.05)
    expected = {event.id: event for event in few}
    copies: Counter[str] = Counter()
    late = 0
    for message in records(provisioned):
        body = orjson.loads(message.value())
        event = expected[body["id"]]
        assert message.value() == event.body()
        place = raw_place(ORG, body["source"], body["id"], 0, 0, provisioned.partitions)
        assert (message.key(), message.partition()) == place
        sealed = stamps.find(message.headers())
        assert sealed is not None
        stamp = stamps.verified(org_key(provisioned.secret(), ORG), message.key(), message.value(), sealed)
        assert stamp is not None
        assert (stamp.kind, stamp.k_ms, stamp.bundle) == (stamps.BACKDATED, event.k_ms, stamps.NO_BUNDLE)
        late += event.k_ms != event.t_ms
        copies[event.id] += 1
    assert copies.keys() == expected.keys()
    assert Counter(copies.values())[2] == round(len(few) * 0.05)
    assert late > 0


def test_a_second_import_sends_nothing(provisioned: Settings, few: Flights) -> None:
    """The log says that it holds every event; nothing is sent again, also under another order."""
    import_flights(provisioned, few, say=silent)
    before = len(list(records(provisioned)))
    again = import_flights(provisioned, few, seed=99, repeats=0.5, say=silent)
    assert (again.sent, again.held) == (0, len(few))
    assert len(list(records(provisioned))) == before


def test_an_import_cut_short_is_completed(provisioned: Settings, few: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an import that ended in the middle, the next one sends the events that are missing, and no other."""
    cut = 100

    class Cut(Sender):
        def send(self, *message: Any, **more: Any) -> None:
            if self.sent == cut:
                self.flush()
                raise StoreError("cut")
            super().send(*message, **more)

    with monkeypatch.context() as patched:
        patched.setattr(imports, "Sender", Cut)
        with pytest.raises(StoreError, match="cut"):
            import_flights(provisioned, few, say=silent)
    there = {message.key() for message in records(provisioned)}
    assert 0 < len(there) <= cut
    rest = import_flights(provisioned, few, say=silent)
    assert rest.held == len(there)
    by_key = Counter(message.key() for message in records(provisioned))
    assert len(by_key) == len(few)


def test_what_is_not_of_the_data_is_said(provisioned: Settings, few: Flights) -> None:
    """A foreign event in the log does not count as held, and is told of."""
    with Sender(provisioned.bootstrap) as sender:
        sender.send(provisioned.topic("raw-events"), 0, b"k" * 16, b"{}")
        sender.send(provisioned.topic("raw-events"), 1, b"marker" + bytes(16), b"x")
    said: list[str] = []
    assert import_flights(provisioned, few, say=said.append).held == 0
    assert any("1 events that are not of this data" in line for line in said)


def test_order_is_kept_within_a_partition(provisioned: Settings, few: Flights) -> None:
    """Each partition holds its events in the order of sending: the seed decides the log."""
    import_flights(provisioned, few, seed=5, say=silent)
    found: dict[int, list[bytes]] = defaultdict(list)
    for message in records(provisioned):
        found[message.partition()].append(message.key())
    expected: dict[int, list[bytes]] = defaultdict(list)
    for number in imports.import_order(len(few), seed=5):
        event = few[number]
        key, partition = raw_place(ORG, event.source, event.id, 0, 0, provisioned.partitions)
        expected[partition].append(key)
    assert found == expected


def test_a_log_without_topics_is_refused(settings: Settings, few: Flights) -> None:
    """Without the topic the import says what to start."""
    with pytest.raises(DeclarationError, match="milepost up"):
        import_flights(settings, few, say=silent)


def test_a_failed_message_is_not_passed_over(provisioned: Settings) -> None:
    """A message that the broker refuses for good raises, at the latest at the end."""
    with pytest.raises(StoreError, match="did not take"), Sender(provisioned.bootstrap) as sender:
        sender.send(provisioned.topic("raw-events"), 99, b"key", b"value")


def test_a_broker_that_is_not_there_is_said(tmp_path: Path, settings: Settings, few: Flights) -> None:
    """A cluster that does not answer is named."""
    away = replace(settings, broker="127.0.0.1:1")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("milepost.ops.reader.PATIENCE_S", 1.0)
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
            import_flights(away, few, say=silent)


def records(settings: Settings) -> Iterator[Any]:
    consumer = plain_consumer(settings.bootstrap)
    try:
        yield from read_to_end(consumer, settings.topic("raw-events"), settings.partitions)
    finally:
        consumer.close()


def silent(_line: str) -> None:
    """Progress for nobody."""
