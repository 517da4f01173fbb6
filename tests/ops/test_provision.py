"""Provisioning: the line's topics, made as wanted, and every difference said with its fix."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from milepost.ops import provision
from milepost.ops.processes import free_ports
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.topology.line import all_topics
from tests.support.broker import TestBroker


def test_topics_are_made_as_the_line_wants_them(settings: Settings) -> None:
    """Every topic of the line exists with its partitions and policies; a second start makes none."""
    made = provision.provision(settings)
    assert made == tuple(f"{settings.namespace}.{topic.name}" for topic in all_topics())
    there = provision.found(provision.admin_client(settings), made)
    for topic in provision.wanted(settings):
        assert there[topic.name].partitions == topic.partitions
        assert {name: there[topic.name].config[name] for name in topic.config} == dict(topic.config)
    raw = there[settings.topic("raw-events")].config
    assert (raw["cleanup.policy"], raw["message.timestamp.type"], raw["min.compaction.lag.ms"]) == (
        "compact",
        "LogAppendTime",
        "259200000",
    )
    assert provision.provision(settings) == ()
    assert set(provision.delete(settings)) == set(made)


def test_another_partition_count_is_refused(settings: Settings) -> None:
    """A deployment asked for other partitions than its log has declines to start and says which count holds."""
    provision.provision(settings)
    with pytest.raises(
        DeclarationError, match=r"raw-events has 4 partitions, 8 wanted; fix: set MILEPOST_PARTITIONS=4"
    ):
        provision.provision(replace(settings, partitions=8))


def test_another_policy_is_refused(settings: Settings, broker: TestBroker) -> None:
    """A topic that somebody made with another policy is named with the command that mends it."""
    name = settings.topic("raw-events")
    admin = broker.admin()
    admin.create_topics([NewTopic(name, 4, 1, config={"cleanup.policy": "delete"})])[name].result(timeout=10)
    with pytest.raises(DeclarationError) as error:
        provision.provision(settings)
    said = str(error.value)
    assert f"{name} has cleanup.policy=delete, compact wanted; fix: kafka-configs.sh --alter" in said
    assert f"{name} has message.timestamp.type=CreateTime, LogAppendTime wanted" in said


def test_a_cleaner_that_waits_longer_is_no_difference(tmp_path: Path) -> None:
    """Lags of compaction may be longer than the line wants, not shorter: nothing is lost by waiting."""
    wanted = next(one for one in provision.wanted(Settings(home=tmp_path)) if one.name == "raw-events")

    def there(lag_ms: int) -> provision.Found:
        config = {**wanted.config, "min.compaction.lag.ms": str(lag_ms)}
        return provision.Found(name=wanted.name, partitions=wanted.partitions, config=config)

    as_wanted = int(wanted.config["min.compaction.lag.ms"])
    assert provision.differences(wanted, there(as_wanted)) == provision.differences(wanted, there(as_wanted * 9)) == []
    assert [provision.held(wanted, there(as_wanted * times)) for times in (1, 9)] == [False, True]
    (said,) = provision.differences(wanted, there(as_wanted - 1))
    assert f"min.compaction.lag.ms={as_wanted - 1}, {as_wanted} wanted" in said


def test_too_few_brokers_are_said(settings: Settings) -> None:
    """Replication that the cluster cannot give is a declaration to be changed, not a fault of the store."""
    with pytest.raises(DeclarationError, match=r"needs 3 brokers.*fix:.*MILEPOST_REPLICATION=1"):
        provision.provision(replace(settings, replication=3))


def test_no_broker_is_said(settings: Settings) -> None:
    """Where no broker answers, the operator is told where, and how to start one or to name another."""
    (port,) = free_ports(1)
    with pytest.raises(StoreError, match=rf"no Kafka broker answers at 127.0.0.1:{port} .*fix: start the cluster, or"):
        provision.provision(replace(settings, broker=f"127.0.0.1:{port}"))
    begun = time.monotonic()
    with pytest.raises(StoreError, match=rf"answers at 127.0.0.1:{port} .*fix: start one with `milepost up`"):
        provision.provision(replace(settings, broker="", broker_port=port))
    assert time.monotonic() - begun < 5, "where nothing listens at all, nobody waits for a broker"
