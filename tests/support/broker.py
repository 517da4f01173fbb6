"""A real broker for tests: one a pytest session, on free ports, or the one named by MILEPOST_TEST_BROKER (host:port).

Jars come from MILEPOST_JARS, else from the default home, so that `make demo` and `make test` fetch them once.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient

from milepost.ops import processes
from milepost.ops.broker import EmbeddedBroker
from milepost.ops.settings import default_home

IMPATIENT = {
    "log.cleaner.backoff.ms": "500",  # compaction within a test's patience, where a topic's lag allows it
    "group.min.session.timeout.ms": "1000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TestBroker:
    """Where the broker is.  `embedded` is None when it is not ours (MILEPOST_TEST_BROKER)."""

    __test__ = False

    bootstrap: str
    embedded: EmbeddedBroker | None

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def drop(self, namespace: str) -> None:
        """Delete every topic of the namespace."""
        admin = self.admin()
        names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(f"{namespace}.")]
        if names:
            for future in admin.delete_topics(names, operation_timeout=10).values():
                with contextlib.suppress(Exception):  # a test may have deleted it itself, or killed the broker
                    future.result(timeout=10)


def shared_jars() -> Path:
    """The folder of jars that tests share."""
    return Path(os.environ.get("MILEPOST_JARS") or Path(default_home(os.environ)).expanduser() / "kafka")


@contextlib.contextmanager
def running_broker(properties: Mapping[str, str] | None = None) -> Iterator[TestBroker]:
    """A broker for as long as the block lasts; its data is deleted afterwards."""
    outside = os.environ.get("MILEPOST_TEST_BROKER")
    if outside and properties is None:
        yield TestBroker(bootstrap=outside, embedded=None)
        return
    with (
        tempfile.TemporaryDirectory(prefix="milepost-test-", ignore_cleanup_errors=True) as home,
        EmbeddedBroker(Path(home), jars=shared_jars(), properties={**IMPATIENT, **(properties or {})}) as broker,
    ):
        yield TestBroker(bootstrap=broker.bootstrap, embedded=broker)


def broker_ports() -> tuple[int, int]:
    """(a broker's port, another one), both free, and so is the one behind the first: the controller takes it."""
    while True:
        broker_port, port = processes.free_ports(2)
        if not processes.taken(broker_port + 1) and broker_port + 1 != port:
            return broker_port, port
