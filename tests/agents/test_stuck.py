"""Stuck: a checkpoint that never lands ends the process, unless the broker is away or the disk is full."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaException

from milepost.agents import bindings
from milepost.agents.bindings import AWAY_S, STUCK, Runtime


class Admin:
    """A broker that answers, or does not."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers

    def list_topics(self, timeout: float) -> None:
        if not self.answers:
            raise KafkaException("no broker")


def looked_at(monkeypatch: pytest.MonkeyPatch, *, away_s: float, answers: bool, full: bool = False) -> list[Any]:
    """What the process ended with: [] when it went on."""
    ended: list[Any] = []
    monkeypatch.setattr(bindings, "end", lambda reason, code: ended.append(code))
    runtime: Any = object.__new__(Runtime)
    now = time.monotonic()
    holding = SimpleNamespace(away_since=now - away_s, room=SimpleNamespace(full=full))
    runtime.legs = {"measure": SimpleNamespace(holdings={0: holding})}
    runtime._admin = Admin(answers=answers)
    runtime._answered_since = now - 2 * AWAY_S
    asyncio.run(runtime._look_at_checkpoints())
    return ended


def test_a_checkpoint_that_never_lands_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Away for over a minute while the broker answers: the worker ends, to be started again."""
    assert looked_at(monkeypatch, away_s=AWAY_S + 1, answers=True) == [STUCK]


def test_a_broker_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a checkpoint is away: without a broker it cannot land, and the worker waits."""
    assert looked_at(monkeypatch, away_s=100 * AWAY_S, answers=False) == []


def test_a_checkpoint_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the bound, or without room on the disk, nothing ends."""
    assert looked_at(monkeypatch, away_s=AWAY_S / 2, answers=True) == []
    assert looked_at(monkeypatch, away_s=100 * AWAY_S, answers=True, full=True) == []
