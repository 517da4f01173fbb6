"""Posting: what a connector sends, into a driver: the gateway without a worker."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from milepost.schemas.keys import raw_place
from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.steps import run
from tests.support.small import DAY

NOW = 1_800_000_000_000


class DriverClient:
    """As much of ops.client.Client as connectors use.  `seen` holds what was sent before; `posts` how much came each time."""

    def __init__(self, driver: Driver, org: str = "acme", sources: tuple[str, ...] = ("git",)) -> None:
        self.driver, self.org, self.sources = driver, org, sources
        self.seen: dict[bytes, bytes] = {}
        self.posts: list[int] = []
        self.now_ms = NOW
        self.fails_after: int | None = None

    def get(self, path: str, /, **_: Any) -> Any:
        assert path == "/v1/metrics"
        return {"org": self.org}

    def post(self, path: str, body: Any) -> Any:
        if path == "/v1/definitions:plan":
            return {
                "current": "",
                "changes": [] if self.sources else [{"what": "source", "name": "git", "how": "added"}],
            }
        assert path == "/v1/events"
        if self.fails_after is not None and len(self.posts) >= self.fails_after:
            raise KeyboardInterrupt
        self.posts.append(len(body))
        self.now_ms += 1_000
        return {"items": [self._take(event) for event in body]}

    def _take(self, event: dict[str, Any]) -> dict[str, Any]:
        key = raw_place(event["org"], event["source"], event["id"], 0, 0, 1)[0]
        raw = hashlib.blake2b(orjson.dumps(event)).digest()
        known = self.seen.setdefault(key, raw)
        first = key not in self.seen or known is raw
        partition, offset = self.driver.produce(event, self.now_ms)
        return {"status": "accepted" if first else "duplicate", "receipt": f"raw-events/{partition}@{offset}"}

    def ask(self, metric: str, by: str | None = None, **asked: Any) -> Any:
        """A value, or label -> value of a breakdown."""
        self.driver.run()
        questions = Questions(self.driver.reader)
        question = Question(metric=metric, now_ms=self.now_ms + DAY, org=self.org, **asked)
        if by is None:
            return run(questions.value(question))["value"]
        return {row["label"]: row["value"] for row in run(questions.breakdown(question, by))["rows"]}

    @property
    def reasons(self) -> list[str]:
        self.driver.run()
        return sorted(one["reason"] for one in self.driver.dead_letters)
