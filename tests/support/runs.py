"""One run of the first week through a real worker: shuffled, repeated, cut into chunks and partitions, its folder lost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from milepost.ops.flights import import_order
from milepost.ops.settings import Settings
from tests.support.flights_driver import unmoved
from tests.support.invariants import conservation, held, same_counts
from tests.support.workers import LEGS, Deployment, Shift, week


@dataclass(frozen=True, kw_only=True)
class Run:
    """What may differ between two runs and must not show.  lost: the state folder, in the middle of the import."""

    partitions: int = 4
    chunk: int = 4000
    repeats: float = 0.05
    lost: bool = False
    seed: int = 1

    def __str__(self) -> str:
        lost = "-lost" if self.lost else ""
        return f"{self.partitions}p-chunks{self.chunk}-repeats{round(self.repeats * 100)}-seed{self.seed}{lost}"

    def deployment(self, settings: Settings) -> Deployment:
        return Deployment(replace(settings, partitions=self.partitions, chunk_max=self.chunk))

    def through(self, deployment: Deployment, shift: Shift = unmoved) -> dict[str, str]:
        """Send the week, fold it, and answer with the digest; the worker is left running."""
        order = import_order(len(week()), seed=self.seed, repeats=self.repeats)
        deployment.apply()
        middle = len(order) // 2
        deployment.send((week()[number] for number in order[:middle]), shift=shift)
        deployment.start()
        if self.lost:
            wanted = middle // 4
            deployment.wait(lambda: deployment.landed("ingest") >= wanted, "a quarter of the first half has not landed")
            deployment.wait(lambda: deployment.landed("measure") > 0, "nothing of it has landed in measure")
            deployment.kill()
            landed = {leg: least for leg in LEGS if (least := deployment.landed(leg))}
            assert {"ingest", "measure"} <= landed.keys()
            deployment.lose_state()
            deployment.start()
            # What was committed came back from the changelogs alone.
            for leg, least in landed.items():
                assert sum(at for (name, _), at in deployment.worker.opened().items() if name == leg) >= least
        deployment.send((week()[number] for number in order[middle:]), shift=shift)
        status = deployment.settle()
        if not self.lost:  # one life counts everything once; the second of two does not know the first
            fates = status["fates"]["ingest"]
            held(conservation(fates), same_counts(self.ends(), fates, self.ends()))
        return deployment.digest()

    def ends(self) -> dict[str, int]:
        """How many records are the first of their event, and how many come again."""
        return {"accepted": len(week()), "duplicate": round(len(week()) * self.repeats)}
