"""F17: logs that were changed under the engine: exact state by rebuilding, or a refusal that names the fix."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, ResourceType

from milepost.ops.provision import admin_client, provision
from milepost.ops.settings import Settings
from milepost.schemas.errors import MilepostError
from milepost.topology.line import LEGS
from tests.support.flights_driver import driver_digest
from tests.support.keeper import control, dealt, firsts, kept
from tests.support.workers import LEGS as LEGS_READ
from tests.support.workers import Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SOME = 2000
CHANGELOGS = tuple(leg.changelog for leg in LEGS)


def went_on(deployment: Deployment) -> bool:
    """Whether each partition with records was opened behind its first."""
    ends = {leg: deployment.ends(topic) for leg, topic in LEGS_READ.items()}
    return all(at > 0 for (leg, number), at in deployment.worker.opened().items() if ends[leg][number])


@pytest.fixture
def deployment(settings: Settings) -> Iterator[Deployment]:
    """A deployment with half of the events settled, and down."""
    with Deployment(settings, partitions=2) as made:
        made.apply()
        made.send(firsts(SOME)[: SOME // 2])
        made.start()
        made.settle()
        made.kill()
        yield made


def right(deployment: Deployment, count: int = SOME) -> None:
    """Everything sent is taken; every table is that of an undisturbed run."""
    deployment.settle()
    assert deployment.digest() == driver_digest(firsts(SOME)[:count])


def more(deployment: Deployment) -> None:
    deployment.send(firsts(SOME)[SOME // 2 :])


def delete(deployment: Deployment, *names: str) -> None:
    """Delete topics; they are gone when this returns."""
    admin = admin_client(deployment.settings)
    wanted = [deployment.settings.topic(name) for name in names]
    for future in admin.delete_topics(wanted, operation_timeout=20).values():
        future.result(timeout=20)
    until = time.monotonic() + 20
    while set(wanted) & set(admin.list_topics(timeout=10).topics):
        assert time.monotonic() < until
        time.sleep(0.1)


def behead(deployment: Deployment, name: str, share: float) -> None:
    """Delete the first `share` of each partition's records."""
    admin = admin_client(deployment.settings)
    ends = deployment.ends(name)
    cuts = [
        TopicPartition(deployment.settings.topic(name), number, max(1, int(end * share)))
        for number, end in ends.items()
    ]
    for policy in ("compact,delete", "compact"):  # a log that is only compacted refuses it
        entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, deployment.settings.topic(name), incremental_configs=[entry])
        for done in admin.incremental_alter_configs([resource]).values():
            done.result(timeout=20)
        if policy != "compact":
            _patiently(lambda: [one.result(timeout=20) for one in admin.delete_records(cuts).values()])


def refused(deployment: Deployment, *words: str) -> None:
    """The worker ends by itself, and its log says why and what to do."""
    worker = deployment.start(ready=False)
    assert worker.wait_end() != 0
    assert all(word in worker.log for word in ("fix:", *words)), worker.told()


@pytest.mark.campaign
@dealt("F17", "logs changed under the engine")
def test_a_changelog_without_its_head_is_enough_while_the_folder_is_there(deployment: Deployment) -> None:
    """Deleted records that the folder holds are not missed; nothing is rebuilt."""
    for name in CHANGELOGS:
        behead(deployment, name, 1.0)
    deployment.start()
    assert went_on(deployment)
    more(deployment)
    right(deployment)


@pytest.mark.parametrize("share", [pytest.param(0.5, marks=pytest.mark.campaign), 1.0], ids=["half", "all"])
@dealt("F17", "logs changed under the engine")
def test_a_changelog_without_its_head_is_rebuilt_from_the_log(deployment: Deployment, share: float) -> None:
    """Without the folder too, state is folded from the first record again, once: the next restore finds it whole."""
    for name in CHANGELOGS:
        behead(deployment, name, share)
    deployment.lose_state()
    deployment.start()
    assert set(deployment.worker.opened().values()) == {0}
    assert "state is rebuilt from the source" in deployment.worker.log
    more(deployment)
    right(deployment)
    deployment.kill()
    deployment.lose_state()
    deployment.start()
    assert went_on(deployment)
    right(deployment)


@pytest.mark.campaign
@dealt("F17", "logs changed under the engine")
def test_a_changelog_made_anew_under_the_running_worker_is_rebuilt(deployment: Deployment) -> None:
    """Deleted and made again while the worker runs: it ends, comes back, sets its folders aside, and is right."""
    with kept(deployment) as worker:
        deployment.settle()
        delete(deployment, *CHANGELOGS)
        provision(deployment.settings)
        more(deployment)
        deployment.wait(lambda: worker.supervisor.restarts > 0, "nobody noticed")
        right(deployment)


@pytest.mark.campaign
@dealt("F17", "logs changed under the engine", tables=False)
def test_a_raw_log_made_anew_is_refused(deployment: Deployment) -> None:
    """State of another log is never gone on with: the worker says whose it is and what to do."""
    delete(deployment, "raw-events")
    provision(deployment.settings)
    refused(deployment, "the log was made anew", "ingest-changelog")


@pytest.mark.campaign
@dealt("F17", "logs changed under the engine")
def test_a_raw_log_without_its_head_cannot_be_rebuilt_from(deployment: Deployment) -> None:
    """With state the deleted head is not missed; without it the worker refuses to make other state of the rest."""
    behead(deployment, "raw-events", 0.5)
    deployment.start()
    more(deployment)
    right(deployment)
    deployment.kill()
    deployment.lose_state()
    delete(deployment, *CHANGELOGS)
    provision(deployment.settings)
    refused(deployment, "records were deleted from the log", "raw-events")


@pytest.mark.campaign
@dealt("F17", "logs changed under the engine")
def test_signals_made_anew_are_refused_and_the_named_fix_works(deployment: Deployment) -> None:
    """Signals are ingest's to send: the refusal says to delete both changelogs, and then everything is made again."""
    delete(deployment, "signals")
    provision(deployment.settings)
    refused(deployment, "delete both changelogs")
    delete(deployment, *CHANGELOGS)
    provision(deployment.settings)
    deployment.start()
    more(deployment)
    right(deployment)


@pytest.mark.campaign
@dealt("F17", "logs changed under the engine", 3, tables=False)
def test_a_changed_partition_count_is_refused(deployment: Deployment) -> None:
    """One topic grown, or all of them and the setting too: dedupe is by partition, so no state fits."""
    admin = admin_client(deployment.settings)

    def grow(*names: str) -> None:
        wanted = [NewPartitions(deployment.settings.topic(name), 3) for name in names]
        for future in admin.create_partitions(wanted).values():
            future.result(timeout=20)
        time.sleep(1)

    grow("signals")
    refused(deployment, "3 partitions")
    grow("raw-events", "record-changes", "dead-letters", *CHANGELOGS)
    refused(deployment, "MILEPOST_PARTITIONS")
    deployment.settings = replace(deployment.settings, partitions=3)
    refused(deployment, "given other partitions")


@pytest.mark.campaign
@dealt("F17", "logs changed under the engine", 2)
def test_a_committed_offset_is_only_for_display(deployment: Deployment) -> None:
    """Set beyond the end or back to nothing, it changes nothing: the worker goes on behind its own mark."""
    admin = admin_client(deployment.settings)
    for offset in (10**9, 0):
        if deployment.worker.alive:
            deployment.worker.stop()
        moved = [
            TopicPartition(deployment.settings.topic(topic), number, offset)
            for topic in ("raw-events", "signals")
            for number in range(2)
        ]
        asked = [ConsumerGroupTopicPartitions(deployment.settings.group, moved)]
        # The ghost of the killed member stays in the group for its session.
        _patiently(lambda asked=asked: [one.result(20) for one in admin.alter_consumer_group_offsets(asked).values()])
        deployment.start()
        assert went_on(deployment)
    more(deployment)
    deployment.wait(
        lambda: sum(deployment.worker.status().get("lag", {"": 1}).values()) == 0, "the events are not taken"
    )
    right(deployment)


@pytest.mark.campaign
@control("half a changelog taken for whole")
def test_an_engine_that_goes_on_with_half_a_changelog_is_noticed(deployment: Deployment) -> None:
    """Positive control: a cut changelog taken for a whole one loses rows, and the digest says so."""
    for name in CHANGELOGS:
        behead(deployment, name, 0.5)
    deployment.lose_state()
    deployment.start(mutant="from milepost.agents.restore import Restore\nRestore.cut = lambda *_: False")
    more(deployment)
    deployment.settle()
    try:
        found = deployment.digest()
    except MilepostError:
        return  # its rows do not even fit together
    assert found != driver_digest(firsts(SOME))


def _patiently(step: Callable[[], object]) -> None:
    """Do what the broker may refuse for a while."""
    until = time.monotonic() + 30
    while True:
        try:
            step()
            return
        except KafkaException:
            assert time.monotonic() < until
            time.sleep(0.3)
