"""Provisioning: the line's topics at the broker, made when absent, compared when there.

Faust does not create its source topics, and a broker that creates them by itself gives them the wrong number of
partitions, after which a table stays silently empty.  So every start passes here, and a topic that differs from the
line stops it: the partition count is part of what the log means (dedupe is by partition).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from milepost.ops import processes
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.topology.line import Topic, all_topics

PATIENCE_S: Final = 30.0
ANSWER_S: Final = 10.0
LISTENS_S: Final = 1.0

OUTSIDE: Final[Mapping[str, str]] = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
"""What production adds to each topic, when it is replicated (design §11)."""


AT_LEAST: Final = ("min.compaction.lag.ms", "max.compaction.lag.ms")
"""Settings of which more is safe: nothing is lost when the cleaner waits longer, only room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A topic as it shall be at the broker: full name, partitions, replication, the configuration that we set."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A topic as it is at the broker: partitions, and the configuration with the broker's defaults filled in."""

    name: str
    partitions: int
    config: Mapping[str, str]


def wanted(settings: Settings) -> tuple[Wanted, ...]:
    """The line's topics and changelogs as this deployment wants them, in the line's order."""
    return tuple(_wanted(topic, settings) for topic in all_topics())


def provision(settings: Settings) -> tuple[str, ...]:
    """Make the topics that are absent and compare those that are there; returns the names of those made.

    Raises DeclarationError when a topic differs (all differences, each with its fix), StoreError when the broker does
    not answer or refuses.
    """
    admin = admin_client(settings)
    targets = wanted(settings)
    there = found(admin, [topic.name for topic in targets])
    _compare(targets, there)
    made = [topic.name for topic in targets if topic.name not in there and create(settings, topic)]
    # Looked at again: another process may have made some, and the broker's view of what it made may lag.
    end = time.monotonic() + PATIENCE_S
    while len(there) < len(targets):
        if time.monotonic() > end:
            raise StoreError(f"topics made at {settings.bootstrap} did not appear in {PATIENCE_S:.0f} s")
        there = found(admin, [topic.name for topic in targets])
        if len(there) < len(targets):
            time.sleep(0.05)
    _compare(targets, there)
    return tuple(made)


def set_config(settings: Settings, topic: str, config: Mapping[str, str]) -> None:
    """Change the configuration of a topic of the line, and wait until the broker says so."""
    name = settings.topic(topic)
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    admin = admin_client(settings)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource], request_timeout=PATIENCE_S).values():
        _result(future, f"configuring {name}")
    end = time.monotonic() + PATIENCE_S
    while not config.items() <= found(admin, [name])[name].config.items():
        if time.monotonic() > end:
            raise StoreError(f"{name} has not taken {dict(config)} in {PATIENCE_S:.0f} s")
        time.sleep(0.05)


def found(admin: Admin, names: Sequence[str]) -> Mapping[str, Found]:
    """Those of `names` that exist at the broker."""
    metadata = _metadata(admin)
    there = [name for name in names if name in metadata.topics]
    if not there:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
    answers = admin.describe_configs(resources, request_timeout=PATIENCE_S)
    out = {}
    for resource, future in answers.items():
        entries: Any = _result(future, f"describing {resource.name}")
        config = {name: str(entry.value) for name, entry in entries.items()}
        out[resource.name] = Found(
            name=resource.name, partitions=len(metadata.topics[resource.name].partitions), config=config
        )
    return out


def differences(topic: Wanted, there: Found) -> list[str]:
    """What is wrong with a topic that exists, one line a difference, each with its fix."""
    wrong = []
    if there.partitions != topic.partitions:
        wrong.append(
            f"{topic.name} has {there.partitions} partitions, {topic.partitions} wanted; fix: set MILEPOST_PARTITIONS="
            f"{there.partitions} if they were meant, or use another MILEPOST_NAMESPACE (growing them needs a replay)"
        )
    for name, value in topic.config.items():
        is_there = there.config.get(name, "")
        if name in AT_LEAST and is_there.isdigit() and int(is_there) >= int(value):
            continue
        if set(is_there.split(",")) != set(value.split(",")):
            wrong.append(
                f"{topic.name} has {name}={is_there or 'nothing'}, {value} wanted; fix: kafka-configs.sh --alter "
                f"--entity-type topics --entity-name {topic.name} --add-config {name}={_quoted(value)}"
            )
    return wrong


def delete(settings: Settings) -> tuple[str, ...]:
    """Delete this deployment's topics; returns the names of those that were there."""
    admin = admin_client(settings)
    metadata = _metadata(admin)
    names = [topic.name for topic in wanted(settings) if topic.name in metadata.topics]
    if names:
        for name, future in admin.delete_topics(names, operation_timeout=PATIENCE_S).items():
            _result(future, f"deleting {name}")
    return tuple(names)


def held(topic: Wanted, there: Found) -> bool:
    """Whether the cleaner waits longer than the line wants: for a restore, or to gain time."""
    return any(name in topic.config and there.config.get(name) != topic.config[name] for name in AT_LEAST)


def cluster_id(settings: Settings) -> str:
    """The id of the cluster that answers; StoreError if none does."""
    metadata = _metadata(admin_client(settings))
    return str(metadata.cluster_id)


def cluster_topics(settings: Settings) -> Mapping[str, int]:
    """All topics of the cluster and their partitions; StoreError if none answers."""
    return {name: len(topic.partitions) for name, topic in _metadata(admin_client(settings)).topics.items()}


def newest_ms(settings: Settings, topic: str) -> int | None:
    """When the newest record of a topic was appended; None where it holds none.  StoreError without a broker."""
    name, admin = settings.topic(topic), admin_client(settings)
    there = _metadata(admin).topics.get(name)
    if there is None:
        return None
    newest: Any = OffsetSpec
    asked = {TopicPartition(name, number): newest.max_timestamp() for number in there.partitions}
    answers = admin.list_offsets(asked, request_timeout=PATIENCE_S)
    found: list[Any] = [_result(future, f"asking for the newest record of {name}") for future in answers.values()]
    return max((one.timestamp for one in found if one.timestamp >= 0), default=None)


class Admin(AdminClient):
    """An admin client that knows whose broker it asks, so that an error can say where and what to do."""

    def __init__(self, settings: Settings) -> None:
        # librdkafka would write each failed connection to stderr by itself; we say once, and what to do.
        super().__init__({"bootstrap.servers": settings.bootstrap, "log_level": 0, "client.id": "milepost-provision"})
        self.settings = settings

    def no_broker(self, why: str) -> StoreError:
        """That none answers."""
        fix = "start one with `milepost up`, or name it with MILEPOST_BROKER"
        if not self.settings.embedded:
            fix = "start the cluster, or correct MILEPOST_BROKER"
        return StoreError(f"no Kafka broker answers at {self.settings.bootstrap} ({why}); fix: {fix}")


def admin_client(settings: Settings) -> Admin:
    return Admin(settings)


def _compare(targets: Sequence[Wanted], there: Mapping[str, Found]) -> None:
    wrong = [line for topic in targets if topic.name in there for line in differences(topic, there[topic.name])]
    if wrong:
        raise DeclarationError(
            "topics at the broker differ from the line, nothing is started:\n  " + "\n  ".join(wrong)
        )


def _wanted(topic: Topic, settings: Settings) -> Wanted:
    replicated = dict(OUTSIDE) if settings.replication >= 3 else {}
    return Wanted(
        name=settings.topic(topic.name),
        partitions=topic.partitions or settings.partitions,
        replication=settings.replication,
        config={**topic.config, **replicated},
    )


def create(settings: Settings, topic: Wanted) -> bool:
    """Make one topic.  False: another process made it between our look and our request."""
    admin = admin_client(settings)
    new = NewTopic(
        topic.name, num_partitions=topic.partitions, replication_factor=topic.replication, config=dict(topic.config)
    )
    future = admin.create_topics([new], operation_timeout=PATIENCE_S, request_timeout=PATIENCE_S)[topic.name]
    try:
        future.result(timeout=PATIENCE_S)
    except KafkaException as error:
        cause: Any = error.args[0]
        if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        if cause.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            raise DeclarationError(
                f"{topic.name} needs {topic.replication} brokers, {settings.bootstrap} has fewer; "
                "fix: start more brokers, or set MILEPOST_REPLICATION=1 (one lost disk is then lost data)"
            ) from error
        raise StoreError(f"making topic {topic.name} at {settings.bootstrap}: {cause.str()}") from error
    return True


def _metadata(admin: Admin) -> Any:
    settings = admin.settings
    if settings.embedded and not _listens(settings.broker_port):
        raise admin.no_broker("nothing listens there")  # librdkafka would wait for it
    try:
        return admin.list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        cause: Any = error.args[0]
        raise admin.no_broker(cause.str()) from error


def _listens(port: int) -> bool:
    """Whether anything listens on a port within a second: a broker that is started again may be there in a moment."""
    until = time.monotonic() + LISTENS_S
    while not processes.answers(port):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _result(future: Any, doing: str) -> object:
    try:
        return future.result(timeout=PATIENCE_S)
    except KafkaException as error:
        cause: Any = error.args[0]
        raise StoreError(f"{doing}: {cause.str()}") from error


def _quoted(value: str) -> str:
    return f"[{value}]" if "," in value else value
