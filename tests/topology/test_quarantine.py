"""Quarantine: what a verdict covers, who may pass one, and that a replay decides by it; compacted signals rebuild."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milepost.schemas import stamps
from milepost.schemas.errors import ContractError, StoreError
from milepost.schemas.stamps import Stamp
from milepost.topology import quarantine
from milepost.topology.digest import digest
from milepost.topology.driver import Driver, Message, land, new_partition
from milepost.topology.quarantine import Verdict
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

NOW = T0 + DAY
BAD = Message(7, NOW, b"k", b"bytes")


def driver() -> Driver:
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, NOW)
    made.run()
    return made


def test_a_verdict_covers_the_record_and_the_same_bytes_behind_it() -> None:
    """What lay before is not covered, nor another value; an empty value is covered at its own offset alone."""
    found = quarantine.verdict(BAD, "poison", "x")
    assert found.covers(BAD) and found.covers(BAD._replace(offset=9))
    assert not found.covers(BAD._replace(offset=6))
    assert not found.covers(BAD._replace(offset=8, value=b"other"))
    tick = quarantine.verdict(BAD._replace(key=b"tick", value=b""), "poison", "x")
    assert tick.covers(BAD._replace(key=b"tick", value=b""))
    assert not tick.covers(BAD._replace(offset=8, key=b"tick", value=b""))


def test_a_verdict_is_bytes_and_back_and_nothing_else_is_one() -> None:
    """It survives its contract; a reason that is none is refused."""
    found = quarantine.verdict(BAD, "poison", "x")
    assert Verdict.load(found.dump()) == found
    with pytest.raises(ContractError):
        Verdict.load(replace(found, reason="because").dump())  # type: ignore[arg-type]


def test_only_ours_are_heard() -> None:
    """A verdict under another secret, or moved to another key, is none; ours is, in either leg."""
    made = driver()
    at = made.state["ingest", 0]
    ingest = made.legs["ingest"]
    out = ingest.sentence(at, quarantine.verdict(BAD, "poison", "x"))
    ours = Message(9, NOW, out.key, out.value, out.headers)
    assert ingest.heard(ours) is not None
    assert ingest.heard(ours._replace(key=b"verdictx")) is None
    assert ingest.heard(ours._replace(headers=())) is None
    forged = stamps.header(b"another secret of 24 by.", out.key, out.value, Stamp(kind=stamps.VERDICT))
    assert ingest.heard(ours._replace(headers=(forged,))) is None


def test_a_condemned_record_is_a_dead_letter_and_its_first_record_is_owed() -> None:
    """Passed over it is read, dead and counted; the log gets the first record of its key again; behind it all goes on."""
    made = driver()
    made.produce(visit("e1", T0), NOW)
    made.run()
    key = made.topics["raw-events"][0][-1].key
    bad = made.append("raw-events", 0, key, b"kills", (), NOW)
    at, ingest = made.state["ingest", 0], made.legs["ingest"]
    record = made.topics["raw-events"][0][bad]
    quarantine.remember(at, quarantine.verdict(record, "poison", "it kills"), bad)
    assert quarantine.clear(at, [record]) == 0 and quarantine.without(at, [record]) == []
    out = ingest.pass_over(at, record, quarantine.condemned(at, record))  # type: ignore[arg-type]
    assert out.fates == {"read": 1, "dead:poison": 1} and len(out.after) == 1
    assert at.next_offset == bad + 1
    again = new_partition("ingest", ingest, 0)
    again.stores = at.stores
    quarantine.load(again)
    assert again.poison == at.poison


def test_a_passed_over_signal_leaves_no_gap_behind_it() -> None:
    """What comes behind a condemned signal from its raw partition is in turn; a forged one moves nothing."""
    made = driver()
    for i in range(3):
        made.produce(visit(f"e{i}", T0 + i * HOUR), NOW + i)
    made.run()
    measure = made.legs["measure"]
    at = new_partition("measure", measure, 0)
    records = made.topics["signals"][0]
    measure.fold(at, records[:1])
    measure.pass_over(at, records[1], quarantine.verdict(records[1], "unknown_schema", ""))
    assert dict(measure.fold(at, records[2:3]).fates) == {"gap": 1}
    condemned = quarantine.verdict(records[1], "poison", "")
    assert dict(measure.pass_over(at, records[1], condemned).fates) == {"dead:poison": 1}
    assert dict(measure.pass_over(at, records[1], condemned).fates) == {"reemitted": 1}
    assert measure.fold(at, records[2:]).fates["taken"] == 1


def test_a_signal_told_twice_is_known_as_a_repeat() -> None:
    """Kills from outside condemn no repeat: the cleaner may leave it alone, and a restore reads the fact from it."""
    made = driver()
    for i in range(2):
        made.produce(visit(f"e{i}", T0 + i * HOUR), NOW + i)
    made.run()
    measure = made.legs["measure"]
    at = new_partition("measure", measure, 0)
    first, second = (one for one in made.topics["signals"][0] if quarantine.origin(one) is not None)
    assert not measure.repeats(at, first)
    measure.fold(at, [first])
    assert measure.repeats(at, first._replace(offset=50)) and not measure.repeats(at, second)
    # A restore has left a fact of what came out of turn: that says nothing.
    at.stores["facts"].put_many({key: value for _, key, value in measure.from_source([second])})
    assert not measure.repeats(at, second._replace(offset=50))
    assert not measure.repeats(at, first._replace(offset=50, value=b"bytes of somebody else"))


def test_what_late_bytes_of_a_dead_owner_told_is_written_again() -> None:
    """A restore took a row of the future from them; another folder has none, so the checkpoint must hold it."""
    made = driver()
    made.produce(visit("e1", T0), NOW)
    made.run()
    at, ingest = made.state["ingest", 0], made.legs["ingest"]
    record = made.topics["raw-events"][0][-1]
    row = at.stores["seen"].get(record.key or b"")
    assert record.key is not None and row is not None
    again = new_partition("ingest", ingest, 0)
    again.stores["seen"].put(record.key, row)
    land(again.stores["seen"])
    assert not again.stores["seen"].dirty
    ingest.fold(again, made.topics["raw-events"][0])
    assert again.stores["seen"].dirty[record.key] == row


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who floods a topic with records to be condemned fills no memory: the worker refuses, and says where."""
    monkeypatch.setattr(quarantine, "VERDICTS_MAX", 2)
    at = driver().state["ingest", 0]
    for offset in (1, 2):
        quarantine.remember(at, quarantine.verdict(BAD._replace(offset=offset, key=b"%d" % offset), "poison", ""), 0)
    with pytest.raises(StoreError, match="fix: see who writes them, offset 3"):
        quarantine.remember(at, quarantine.verdict(BAD._replace(offset=3), "poison", ""), 0)


def test_compacted_signals_give_the_same_tables() -> None:
    """The cleaner removes all ticks but the last: what is left, folded from its beginning, has no gap in it."""
    made = driver()
    for i in range(20):
        made.produce(visit(f"e{i}", T0 + i * HOUR), NOW + i)
        made.tick(NOW + i)
    made.run()
    wanted = digest(made.reader)
    last = {m.key: m.offset for m in made.topics["signals"][0]}
    kept = [m for m in made.topics["signals"][0] if last[m.key] == m.offset]
    assert len(kept) < len(made.topics["signals"][0])
    measure = made.legs["measure"]
    at = new_partition("measure", measure, 0)
    assert measure.fold(at, kept).fates["gap"] == 0
    made.state["measure", 0] = at
    assert digest(made.reader) == wanted


def test_a_condemned_copy_is_not_owed_again() -> None:
    """The engine's own copy of a first record is passed over once: another copy would be too, and so on for ever."""
    made = driver()
    for _ in range(2):
        made.produce(visit("e0", T0), NOW)
    made.run()
    log, ingest, at = made.topics["raw-events"][0], made.legs["ingest"], made.state["ingest", 0]
    copy = log[-1]
    assert copy.headers
    at.stores["owed"].put(copy.key or b"", bytes(24))
    told = ingest.pass_over(at, copy, quarantine.verdict(copy, "poison", "x"))
    assert not told.after
    assert at.stores["owed"].get(copy.key or b"") is None
    assert ingest.pass_over(at, log[-2], quarantine.verdict(log[-2], "poison", "x")).after
