"""What Faust asks of a table, and what stock recovery gets wrong."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from milepost.agents import bindings, table
from milepost.agents.bindings import Runtime, engine
from milepost.agents.changelog import Zombie
from milepost.agents.table import LegStore, LegTable
from milepost.ops.settings import Settings
from tests.agents.toy import SPEC, Count


class Ended(BaseException):
    """The process would have ended here."""


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes the process would have left with."""
    codes: list[int] = []

    def end(_reason: str, code: int = 70, error: BaseException | None = None) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(table, "end", end)
    monkeypatch.setattr(bindings, "end", end)
    return codes


@pytest.fixture
def runtime(tmp_path: Any) -> Runtime:
    _, made = engine(Settings(home=tmp_path, broker="127.0.0.1:1", namespace="n"), web_enabled=False)
    made.bind(Count(), SPEC)
    return made


@pytest.mark.parametrize("session_timeout_s", [6, 41, 300])
def test_a_worker_starts_with_any_session_time_out_that_settings_take(tmp_path: Any, session_timeout_s: int) -> None:
    """Faust declines a session time-out beyond its request time-out, so the second follows the first."""
    settings = Settings(home=tmp_path, broker="127.0.0.1:1", session_timeout_s=session_timeout_s)
    app, _ = engine(settings, web_enabled=False)
    assert app.conf.broker_session_timeout == session_timeout_s < app.conf.broker_request_timeout


def stored(runtime: Runtime) -> LegStore:
    made = runtime.app.tables["count"]
    assert isinstance(made, LegTable)
    data = made.data
    assert isinstance(data, LegStore)
    return data


def event(topic: str, partition: int, records: list[Any]) -> Any:
    return SimpleNamespace(message=SimpleNamespace(topic=topic, partition=partition, offset=1, value=records))


def identity(value: Any) -> Any:
    return value


def test_names_are_the_lines(runtime: Runtime) -> None:
    """Source, changelog and group carry the namespace; nothing of Faust's own naming is left."""
    app = runtime.app
    assert app.conf.id == "n.milepost"
    assert app.tables["count"].changelog_topic.get_topic_name() == "n.count-changelog"
    assert [agent.channel.get_topic_name() for agent in app.agents.values()] == ["n.numbers"]


def test_an_empty_store_says_where_it_stands(runtime: Runtime) -> None:
    """The persisted offset is never None: Faust would keep an earlier assignment's."""
    assert stored(runtime).persisted_offset(TP("n.count-changelog", 0)) == -1


def test_what_stock_recovery_brings_is_not_applied(runtime: Runtime, ended: list[int]) -> None:
    """A chunk of the changelog that comes through the worker's consumer leaves the restore where it stands: it may begin
    anywhere, and what is passed over would never be asked for."""
    untouched: Any = SimpleNamespace()  # whatever of the holding is used is an AttributeError
    runtime.legs["count"].holdings[0] = untouched
    batch = [event("n.other", 0, [1]), event("n.count-changelog", 7, [2]), event("n.count-changelog", 0, [3])]
    stored(runtime).apply_changelog_batch(batch, identity, identity)
    assert ended == []


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("no"), 70), (Zombie("late"), 75)])
def test_a_failure_while_opening_ends_the_process(
    runtime: Runtime, ended: list[int], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    """Faust waits for its tables without looking at their exceptions."""

    async def broken(_numbers: set[int]) -> None:
        raise error

    monkeypatch.setattr(runtime.legs["count"], "open", broken)
    with pytest.raises(Ended):
        asyncio.run(stored(runtime).on_recovery_completed({TP("n.count-changelog", 0)}, set()))
    assert ended == [code]


def test_a_restore_that_stands_still_ends_the_process(
    runtime: Runtime, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock recovery can wait for ever; without progress the worker ends with 1 and is started again."""
    monkeypatch.setattr(bindings, "STUCK_S", 0.5)
    rest = {"state": "restoring", "look": lambda: None, "away_since": None, "room": SimpleNamespace(full=False)}
    still = SimpleNamespace(moved_at=time.monotonic() - 60, **rest)
    moving = SimpleNamespace(moved_at=time.monotonic() + 60, **rest)
    runtime.legs["count"].holdings = {0: still, 1: moving}  # type: ignore[dict-item]

    async def watch() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runtime._watch(), 1.5)
        del runtime.legs["count"].holdings[1]
        with pytest.raises(Ended):
            await asyncio.wait_for(runtime._watch(), 1.5)

    asyncio.run(watch())
    assert ended == [1]


def test_a_buffer_of_one_is_never_used(runtime: Runtime) -> None:
    """Stock recovery gives a buffer size of 1 a meaning of its own: the changelog stays resumed."""
    assert runtime.app.tables["count"].recovery_buffer_size == 2
