"""Apply and rollback: whole at every point where it may be cut, going back through the log, and what plan says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from milepost.ops import cli
from milepost.ops.apply import apply_bundle, attempts, earlier_bundle, history, in_force, plan_bundle
from milepost.ops.provision import provision
from milepost.ops.reader import plain_consumer, read_to_end
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas.errors import BundleError, DeclarationError, StoreError
from milepost.schemas.serde import wire
from milepost.topology.catalog import bundle_id
from milepost.topology.changes import TAKES_UP
from tests.support.manual import bundle
from tests.support.small import FILES, ORG

pytestmark = pytest.mark.broker


def edition(minutes: int) -> dict[str, bytes]:
    """The small bundle with another length of a long visit."""
    return {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(b"> 30.0", b"> %d.0" % minutes)}


A, B, C = edition(30), edition(45), edition(60)


class Ending(Sender):
    """It ends after so many messages; what it sent before is acknowledged."""

    ends_after = 99

    def send(self, topic: str, partition: int, *message: Any, **more: Any) -> None:
        if self.sent == self.ends_after:
            self.flush()
            raise StoreError("ended")
        super().send(topic, partition, *message, **more)


class Interrupted(Ending):
    """Another bundle is applied whole between this one's record and its markers; then this one goes on, or ends."""

    settings: Settings

    def send(self, topic: str, partition: int, *message: Any, **more: Any) -> None:
        if self.sent == 1:
            self.flush()
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr("milepost.ops.apply.Sender", Sender)
                assert apply_bundle(self.settings, B, ORG).overtaken_by == ""
        super().send(topic, partition, *message, **more)


@pytest.mark.parametrize("cut", range(5), ids=lambda cut: f"after {cut} messages")
def test_an_apply_cut_anywhere_is_finished_by_the_next(
    provisioned: Settings, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Cut before the bundle, behind it, or between two markers: the next apply ends with a marker in every partition."""
    apply_bundle(provisioned, A, ORG)

    with monkeypatch.context() as patched:
        patched.setattr(Ending, "ends_after", cut)
        patched.setattr("milepost.ops.apply.Sender", Ending)
        with pytest.raises(StoreError, match="ended"):
            apply_bundle(provisioned, B, ORG)
    now = in_force(provisioned, ORG)
    assert now is not None and now.bundle_id == bundle_id(A if cut == 0 else B)
    plan = plan_bundle(provisioned, B, ORG)
    assert plan.unfinished == (cut > 0) and ("was cut short" in plan.text()) == (cut > 0)
    again = apply_bundle(provisioned, B, ORG)
    assert not plan_bundle(provisioned, B, ORG).unfinished
    assert again.changed and not apply_bundle(provisioned, B, ORG).changed
    marked = [
        message.partition()
        for message in records(provisioned)
        if message.key() == b"marker" + bytes.fromhex(again.attempt)
    ]
    assert sorted(marked) == list(range(provisioned.partitions))
    # What was cut and what finished it are one bundle to go back from.
    assert [one.bundle_id for one in history(provisioned, ORG)] == [bundle_id(B), bundle_id(A)]


def last_markers(settings: Settings) -> set[bytes]:
    """The bundles that are the last in any raw partition."""
    last: dict[int, bytes] = {}
    for message in records(settings):
        if message.key().startswith(b"marker"):
            last[message.partition()] = message.value()[:8]
    assert len(last) == settings.partitions
    return set(last.values())


def test_of_two_applies_at_one_time_one_holds_everywhere(
    provisioned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older bundle's markers came last; who sent them sees that, sends the newer again and says so."""
    with monkeypatch.context() as patched:
        patched.setattr(Interrupted, "settings", provisioned, raising=False)
        # Only the first sender is interrupted: the repair is an apply like any other.
        made = iter([Interrupted])
        patched.setattr("milepost.ops.apply.Sender", lambda *given, **more: next(made, Sender)(*given, **more))
        report = apply_bundle(provisioned, A, ORG)
    assert report.overtaken_by == bundle_id(B).hex() and "was overtaken" in report.text()
    now = in_force(provisioned, ORG)
    assert now is not None and now.bundle_id == bundle_id(B) and last_markers(provisioned) == {bundle_id(B)}
    assert not apply_bundle(provisioned, B, ORG).changed


def test_an_apply_that_dies_among_anothers_markers_is_mended_by_the_next(
    provisioned: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the older bundle's markers lie behind the newer's: plan says so, and the next apply of the newer mends it."""
    with monkeypatch.context() as patched:
        patched.setattr(Interrupted, "settings", provisioned, raising=False)
        patched.setattr(Interrupted, "ends_after", 3)
        patched.setattr("milepost.ops.apply.Sender", Interrupted)
        with pytest.raises(StoreError, match="ended"):
            apply_bundle(provisioned, A, ORG)
    assert last_markers(provisioned) == {bundle_id(A), bundle_id(B)}
    assert plan_bundle(provisioned, B, ORG).unfinished
    assert apply_bundle(provisioned, B, ORG).changed
    assert last_markers(provisioned) == {bundle_id(B)}


def test_a_rollback_puts_an_earlier_bundle_in_force_as_a_new_attempt(provisioned: Settings) -> None:
    """One back, two back, or by id: a new record with new markers; nothing of the log is overwritten."""
    for files in (A, B, C):
        apply_bundle(provisioned, files, ORG)
    before = [one.attempt for one in attempts(provisioned)]
    assert earlier_bundle(provisioned, ORG) == B and earlier_bundle(provisioned, ORG, back=2) == A
    assert earlier_bundle(provisioned, ORG, to=bundle_id(A).hex()[:6]) == A
    report = apply_bundle(provisioned, earlier_bundle(provisioned, ORG), ORG)
    assert report.changed and report.bundle == bundle_id(B).hex()
    after = [one.attempt for one in attempts(provisioned)]
    assert after[:3] == before and len(after) == 4 and after[3].hex() == report.attempt
    assert earlier_bundle(provisioned, ORG) == C, "rolled back again, the log is where it was"


def test_what_was_cut_short_can_be_taken_back(provisioned: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback behind an apply that reached two partitions puts the bundle before it in force in all."""
    apply_bundle(provisioned, A, ORG)
    with monkeypatch.context() as patched:
        patched.setattr(Ending, "ends_after", 3)
        patched.setattr("milepost.ops.apply.Sender", Ending)
        with pytest.raises(StoreError, match="ended"):
            apply_bundle(provisioned, B, ORG)
    assert last_markers(provisioned) == {bundle_id(A), bundle_id(B)}
    assert apply_bundle(provisioned, earlier_bundle(provisioned, ORG), ORG).changed
    assert last_markers(provisioned) == {bundle_id(A)}


def test_a_plan_of_a_rollback_says_what_comes_back_and_what_is_missing(provisioned: Settings) -> None:
    """The metrics of the earlier bundle take up their history, with a gap."""
    apply_bundle(provisioned, A, ORG)
    apply_bundle(provisioned, B, ORG)
    plan = plan_bundle(provisioned, earlier_bundle(provisioned, ORG), ORG)
    assert (plan.current, plan.bundle) == (bundle_id(B).hex(), bundle_id(A).hex())
    assert {one.name: one.history for one in plan.changes if one.what == "metric"} == {
        "long_visits": TAKES_UP, "long_rate": TAKES_UP,
    }  # fmt: skip
    assert plan.kept == {"source": 1, "signal": 1, "metric": 9}
    assert [one.bundle_id for one in history(provisioned, ORG)] == [bundle_id(B), bundle_id(A)], "a plan sends nothing"


def test_there_may_be_nothing_to_go_back_to(provisioned: Settings) -> None:
    """Without definitions, without a bundle before, too far back, an id that nobody knows: refused with what there is."""
    with pytest.raises(DeclarationError, match="acme has no definitions yet"):
        earlier_bundle(provisioned, ORG)
    apply_bundle(provisioned, A, ORG)
    with pytest.raises(
        DeclarationError, match="at most 0 bundles can be taken back for acme, 1 were asked for; there is none"
    ):
        earlier_bundle(provisioned, ORG)
    apply_bundle(provisioned, B, ORG)
    with pytest.raises(DeclarationError, match=f"known are {bundle_id(A).hex()}"):
        earlier_bundle(provisioned, ORG, back=2)
    with pytest.raises(DeclarationError, match="no bundle of the last has an id that begins with 'zz'"):
        earlier_bundle(provisioned, ORG, to="zz")
    with pytest.raises(DeclarationError, match="a bundle back from now was expected, 0 came"):
        earlier_bundle(provisioned, ORG, back=0)


def test_what_does_not_validate_is_not_gone_back_to(provisioned: Settings) -> None:
    """A bundle in the log that the workers passed over, because it does not validate, is passed over here."""
    apply_bundle(provisioned, A, ORG)
    broken = {"milepost.yaml": b"signals: {departed: {on: no.such.type}}\n"}
    fields = {"org": ORG, "bundle": bundle_id(broken), "attempt": "00" * 16, "k_ms": 0, "files": broken}
    with Sender(provisioned.bootstrap) as sender:
        sender.send(provisioned.topic("definitions"), 0, bytes(16), wire("Bundle").encode(fields))
    apply_bundle(provisioned, B, ORG)
    assert earlier_bundle(provisioned, ORG) == A
    assert plan_bundle(provisioned, B, ORG).changes == ()


def test_a_bridge_of_somebody_else_is_refused(provisioned: Settings) -> None:
    """plan and apply both say that a bundle's bridges are another organisation's, before anything is sent."""
    for ask in (plan_bundle, apply_bundle):
        with pytest.raises(BundleError, match="the bundle is applied for 'acme'"):
            ask(provisioned, bundle(), ORG)
    assert in_force(provisioned, ORG) is None
    assert apply_bundle(provisioned, bundle(), "port-authority").changed


def test_the_commands_go_back(provisioned: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan --rollback` shows it, `apply --rollback`, `--rollback 2` and `--to` do it; a folder beside them is refused."""
    for name, value in provisioned.environment().items():
        monkeypatch.setenv(name, value)
    for files in (A, B, C):
        apply_bundle(provisioned, files, ORG)
    shown = run("plan", "--rollback", "--org", ORG)
    assert shown.exit_code == 0, shown.stderr
    assert "changed  signal long_visit" in shown.stdout and "because of signal long_visit: takes up" in shown.stdout
    assert "1 source, 1 signal, 9 metrics keep their versions" in shown.stdout
    data = json.loads(run("apply", "--rollback", "2", "--org", ORG, "--json").stdout)
    assert data["bundle"] == bundle_id(A).hex() and data["changed"]
    assert bundle_id(B).hex() in run("apply", "--to", bundle_id(B).hex(), "--org", ORG).stdout
    for wrong in (["somewhere", "--rollback"], ["somewhere", "--to", "ab"], []):
        refused = run("apply", *wrong, "--org", ORG)
        assert refused.exit_code == cli.DECLARATION and "either a folder, or --rollback [N] or --to" in refused.stderr


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture
def provisioned(settings: Settings) -> Settings:
    provision(settings)
    return settings


def records(settings: Settings) -> Iterator[Any]:
    consumer = plain_consumer(settings.bootstrap)
    try:
        yield from read_to_end(consumer, settings.topic("raw-events"), settings.partitions)
    finally:
        consumer.close()
