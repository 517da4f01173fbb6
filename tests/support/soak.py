"""The soak: faults drawn at random, in an order that the seed decides, over a running deployment, for as long as asked.

    python -m tests.support.soak --minutes 30 [--seed 7] [--round 4] [--report build/soak.json]

    round: a new namespace ─▶ worker-1, worker-2 (behind the proxy), at times worker-3, hostile input all the time
           fault ─▶ quick checks ─▶ fault ─▶ …  ─▶ full checks, restore from the changelogs ─▶ the topics are deleted

Disk is bounded by a round's input.  Beside the rounds a witness, a worker that no fault but the broker's meets, runs from
beginning to end: the slope of its memory is the soak's.  Exit code 1 at any violation; three end the soak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.agents.faults import POINTS
from milepost.ops.provision import admin_client
from milepost.ops.settings import Settings
from tests.support.broker import shared_jars
from tests.support.checks import Kept, Progress, Watch, full, quick
from tests.support.hostile import Feed
from tests.support.invariants import slope
from tests.support.own_broker import OwnBroker, own_broker
from tests.support.proxy import FAULTS
from tests.support.report import REPORT, Told, fault
from tests.support.workers import ROOT, SECRET

SESSION_S: Final = 6
HISTORIES: Final = 100
"""Simulated at a time."""

RATE: Final = 200.0
VIOLATIONS_MAX: Final = 3
WARM_UP_S: Final = 300.0
SLOPE_MAX: Final = 0.01
"""Growth an hour, as a share of the mean."""

NOISE_BYTES: Final = 4 * 1024 * 1024
"""Growth below this, over the whole soak, is what an allocator's pages do."""


WITNESS: Final = """
import ctypes, threading, time
from milepost.agents import store
store.MEMTABLE_BYTES, store.CACHE_BYTES = 64 * 1024, 1024 * 1024
libc = ctypes.CDLL(None)
if hasattr(libc, "malloc_trim"):
    libc.mallopt(-8, 1)
    def trim():
        while True:
            time.sleep(10)
            libc.malloc_trim(0)
    threading.Thread(target=trim, daemon=True).start()
"""
"""The witness's caches are full within minutes (256 MiB of them, bounded as they are, would hide a leak for hours), its
allocator has one arena and gives back what is free: its memory is what it holds on to."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a fault may act on."""

    deployment: Kept
    broker: OwnBroker
    chance: random.Random
    told: Told

    def again(self, name: str, **changes: Any) -> None:
        """A new life of a worker that is down, with what it was started with; returns without waiting."""
        self.deployment.keep(name, ready=False, **{**self.deployment.let_go(name), **changes})

    def end(self, name: str) -> None:
        """kill -9; the worker is still kept in mind, and not started again before `again`."""
        worker = self.deployment.workers[name]
        worker.kill()

    def one(self) -> str:
        """A worker that runs, or worker-1."""
        return self.chance.choice([worker.name for worker in self.deployment.running] or ["worker-1"])


def killed(on: Stage) -> str:
    name = on.one()
    on.end(name)
    on.again(name)
    return f"{name} killed"


def killed_at_a_point(on: Stage) -> str:
    point, passage = on.chance.choice(POINTS), on.chance.randint(1, 12)
    name = "worker-1"
    on.end(name)
    if point in ("restoring", "restored", "own_appended"):
        passage = min(passage, 3)
    before = len(on.deployment.ended)
    on.again(name, fault_at=f"{point}:{passage}")
    on.deployment.pause(12)
    fired = [code for code, _ in on.deployment.ended[before:] if code == -signal.SIGKILL]
    on.told.fired(point, len(fired))
    on.deployment.ended = [one for one in on.deployment.ended if one[0] != -signal.SIGKILL]
    return f"{name} killed at {point}:{passage}" + ("" if fired else ", which it did not pass")


def killed_in_a_row(on: Stage) -> str:
    times = on.chance.randint(3, 10)
    for _ in range(times):
        on.end("worker-1")
        on.again("worker-1")
        time.sleep(on.chance.uniform(0.1, 1.0))
    return f"worker-1 killed {times} times"


def stopped_and_woken(on: Stage) -> str:
    name = on.one()
    process = on.deployment.workers[name].process
    seconds = on.chance.choice((0.5, 1.0, 2.0, 3.0)) * SESSION_S
    os.kill(process.pid, signal.SIGSTOP)
    on.deployment.pause(seconds)
    os.kill(process.pid, signal.SIGCONT)
    return f"{name} stopped for {seconds:.0f} s"


def broker_killed(on: Stage) -> str:
    seconds = on.chance.uniform(3, 30)
    on.broker.kill(seconds)
    return f"broker killed, {seconds:.0f} s down"


def broker_restarted(on: Stage) -> str:
    on.broker.restart()
    return "broker restarted"


def broker_frozen(on: Stage) -> str:
    seconds = on.chance.uniform(5, 20)
    on.broker.freeze(seconds)
    return f"broker stopped for {seconds:.0f} s"


def stormy(on: Stage) -> str:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        worker = on.deployment.workers.get("worker-3")
        if worker is None or not worker.alive:
            on.deployment.keep("worker-3", ready=False)
        else:
            on.deployment.let_go("worker-3")
            worker.kill() if on.chance.random() < 0.5 else worker.stop()
        on.deployment.pause(on.chance.uniform(2, 5))
    return "worker-3 came and went for 20 s"


def folder_lost(on: Stage) -> str:
    name = on.one()
    on.end(name)
    shutil.rmtree(on.deployment.workers[name].settings.state, ignore_errors=True)
    on.again(name)
    return f"{name} killed, its state lost"


def folder_deleted(on: Stage) -> str:
    name = on.one()
    folders = sorted(path for path in on.deployment.workers[name].settings.state.glob("*-?") if path.is_dir())
    if not folders:
        return f"{name} had no state to delete"
    folder = on.chance.choice(folders)
    shutil.rmtree(folder, ignore_errors=True)
    on.deployment.pause(5)
    return f"{name} lost {folder.name} while it ran"


def simulated(on: Stage) -> str:
    first = on.chance.randrange(1_000_000_000)
    command = [sys.executable, "-m", "tests.support.simulator", str(first), str(first + HISTORIES)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    on.told.seeds.append(first)
    on.told.count += HISTORIES - 1
    found = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip().endswith("}") else {}
    on.told.processed_again += found.get("records processed again", 0)
    on.told.holds("I2", [] if done.returncode == 0 else [done.stdout[-3000:] + done.stderr[-3000:]])
    return f"{HISTORIES} histories from seed {first}"


def folder_damaged(on: Stage) -> str:
    name = on.one()
    on.end(name)
    files = sorted(
        path
        for path in on.deployment.workers[name].settings.state.rglob("*")
        if path.is_file() and path.suffix in (".sst", ".log", "") and path.stat().st_size > 0
    )
    what = "had no state"
    if files:
        path = on.chance.choice(files)
        size = path.stat().st_size
        with path.open("r+b") as file:
            if on.chance.random() < 0.5:
                file.truncate(on.chance.randrange(size))
                what = "lost its end"
            else:
                file.seek(on.chance.randrange(size))
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes((byte[0] ^ 0xFF,)))
                what = "had a byte flipped"
        what = f"{path.parent.name}/{path.name} {what}"
    on.again(name)
    return f"{name} killed, {what}"


def network_broken(on: Stage) -> str:
    mode = on.chance.choice(FAULTS)
    seconds = on.chance.uniform(2, 15)
    on.broker.proxy.set(mode)
    on.deployment.pause(seconds)
    on.broker.proxy.set("open")
    return f"network {mode} for {seconds:.0f} s"


KINDS: Final[tuple[tuple[str, str, Callable[[Stage], str], int], ...]] = (
    ("F1", "simulated histories", simulated, 2),
    ("F2", "kill -9 at random", killed, 6),
    ("F3", "kill -9 at each crash point", killed_at_a_point, 6),
    ("F4", "kills 0.1 to 1 s apart", killed_in_a_row, 1),
    ("F5", "SIGSTOP past the session, SIGCONT", stopped_and_woken, 3),
    ("F6", "broker killed, restarted, stopped", broker_killed, 2),
    ("F6", "broker killed, restarted, stopped", broker_restarted, 1),
    ("F6", "broker killed, restarted, stopped", broker_frozen, 1),
    ("F7", "rebalance storm", stormy, 1),
    ("F8", "state folder lost", folder_lost, 2),
    ("F8", "state folder lost", folder_deleted, 2),
    ("F9", "state damaged", folder_damaged, 4),
    ("F11", "network broken between worker and broker", network_broken, 4),
)
"""Fault, what it is called, what it does, how often it is drawn."""


def plan(seed: int) -> Iterator[tuple[str, str, Callable[[Stage], str], random.Random]]:
    """The faults in the order that the seed decides, each with a chance of its own: timing changes nothing of it."""
    chance = random.Random(seed)
    while True:
        id, what, blow, _ = chance.choices(KINDS, [weight for *_, weight in KINDS])[0]
        yield id, what, blow, random.Random(chance.getrandbits(64))


class Soak:
    """One soak: rounds until the time is over, and the witness beside them."""

    def __init__(self, broker: OwnBroker, home: Path, *, seed: int, minutes: float, round_minutes: float) -> None:
        self.broker = broker
        self.home = home
        self.seed = seed
        self.round_s = round_minutes * 60
        self.begun = time.monotonic()
        self.until = self.begun + minutes * 60
        self.violations = 0
        self._plan = plan(seed)

    def say(self, text: str) -> None:
        passed = time.monotonic() - self.begun
        print(f"{int(passed // 60):3d}:{int(passed % 60):02d}  {text}", flush=True)

    def settings(self, name: str) -> Settings:
        return Settings(
            home=self.home / name,
            broker=self.broker.bootstrap,
            namespace=f"{name}{uuid.uuid4().hex[:6]}",
            replication=1,
            secret_text=SECRET,
            jars_folder=shared_jars(),
            session_timeout_s=SESSION_S,
        )

    def run(self) -> int:
        """All rounds; 0 when nothing was violated."""
        self.say(f"soak with seed {self.seed}")
        with Kept(self.settings("witness")) as witness, Watch(witness, pause_s=2.0) as watch:
            witness.apply()
            feed = Feed(witness, seed=self.seed, rate=50, events=2000)
            feed.start()
            witness.keep(mutant=WITNESS)
            number = 0
            while time.monotonic() < self.until and self.violations < VIOLATIONS_MAX:
                number += 1
                self.guarded(f"round {number}", lambda number=number: self.round(number, witness))
            with fault("I12", "a worker that nothing but the broker disturbs", seed=self.seed) as told:
                self.guarded("witness", lambda: self.judge(told, witness, watch, feed))
        return 1 if self.violations else 0

    def guarded(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  whatever it is, the soak goes on and answers with its exit code
            self.violations += 1
            self.say(f"{what} VIOLATED: {type(error).__name__}: {str(error)[:6000]}")
            if not isinstance(error, AssertionError):
                traceback.print_exc()

    def round(self, number: int, witness: Kept) -> None:
        settings = self.settings(f"round{number}-")
        ends = min(self.until, time.monotonic() + self.round_s)
        held = False
        try:
            with Kept(settings) as deployment, Watch(deployment) as watch:
                deployment.apply()
                progress = Progress()
                feed = Feed(deployment, seed=self.seed + number, rate=RATE)
                feed.start()
                deployment.keep("worker-1")
                deployment.keep("worker-2", broker=self.broker.proxy.address)
                while time.monotonic() < ends:
                    id, what, blow, chance = next(self._plan)
                    with fault(id, what) as told:
                        begun = time.monotonic()
                        did = blow(Stage(deployment, self.broker, chance, told))
                        ended = time.monotonic()
                        told.count += 1
                        quick(deployment, told, watch, progress)
                        told.recovered(time.monotonic() - ended)
                        self.say(
                            f"round {number}  {id:4s} {did} ({ended - begun:.0f} s), well after {time.monotonic() - ended:.1f} s"
                        )
                    witness.revive()
                feed.finish()
                deployment.only("worker-1")
                with fault("round", "everything checked, restored from the changelogs", seed=feed.seed) as told:
                    full(deployment, told, watch, feed)
                    told.note(f"{feed.sent} records, answers by status {dict(sorted(watch.statuses.items()))}")
                    held = True
                    self.say(f"round {number} holds: {feed.sent} records, {told.processed_again} signals sent again")
        finally:
            self.broker.proxy.set("open")
            drop(settings)
            if held:  # else people look at it
                shutil.rmtree(settings.home, ignore_errors=True)

    def judge(self, told: Told, witness: Kept, watch: Watch, feed: Feed) -> None:
        """The witness at the end: everything holds, and its memory has not grown."""
        feed.finish()
        witness.wait(lambda: bool(witness.status().get("ready")), "the witness is not ready")
        after = [(at, own) for at, own in watch.own if at - self.begun > min(WARM_UP_S, (self.until - self.begun) / 3)]
        if len(after) > 10:
            hours = (after[-1][0] - after[0][0]) / 3600
            grows = slope(after)
            mean = sum(own for _, own in after) / len(after)
            told.note(
                f"memory of the witness without its stores: {mean / 2**20:.0f} MiB, slope {100 * grows / mean:+.2f} % an hour "
                f"({grows * hours / 2**20:+.2f} MiB in {60 * hours:.0f} minutes; up to {NOISE_BYTES / 2**20:.0f} is noise)"
            )
            wrong = [f"I12: memory grows by {100 * grows / mean:.2f} % an hour"]
            told.holds("I12", wrong if grows > SLOPE_MAX * mean and grows * hours > NOISE_BYTES else [])
        full(witness, told, watch, feed)


def drop(settings: Settings) -> None:
    """Delete the topics of a namespace."""
    admin = admin_client(settings)
    names = [name for name in admin.list_topics(timeout=30).topics if name.startswith(f"{settings.namespace}.")]
    for future in admin.delete_topics(names, operation_timeout=30).values():
        future.result(60)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak", description="Faults at random, in an order that the seed decides.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--round", type=float, default=4.0, help="minutes of faults before everything is checked")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--report", type=Path, default=None, help="write the report as JSON")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    home = Path(tempfile.mkdtemp(prefix="milepost-soak-"))
    code = 1
    try:
        with own_broker() as broker:
            code = Soak(broker, home, seed=seed, minutes=given.minutes, round_minutes=given.round).run()
    finally:
        if given.report is not None:
            REPORT.write(given.report)
        print("\n".join(REPORT.table()), flush=True)
        if code == 0:
            shutil.rmtree(home, ignore_errors=True)
        else:
            print(f"the workers' logs are in {home}; again: --seed {seed} --minutes {given.minutes:g}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
