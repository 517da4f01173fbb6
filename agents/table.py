"""Table: a leg's stores as Faust sees them: one table, one changelog, driven by its assignor and its recovery.

Faust decides which partitions are ours; `own`, reading the changelog and opening are the holding's.  Reads and writes
do not go through the mapping interface: a leg folds into overlays, and a checkpoint writes a change set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import faust
from faust.stores.base import Store
from faust.tables.manager import TableManager
from faust.types import TP

from milepost.agents.changelog import Zombie
from milepost.agents.ending import ZOMBIE, end
from milepost.topology.line import LegSpec


class Holder(Protocol):
    """Who holds a leg's partitions (agents/bindings.py)."""

    @property
    def spec(self) -> LegSpec: ...

    @property
    def changelog(self) -> str: ...

    def applied(self, number: int) -> int: ...

    async def take_over(self, numbers: set[int]) -> None: ...

    async def open(self, numbers: set[int]) -> None: ...

    async def release(self) -> None: ...


class LegStore(Store[Any, Any]):
    """What Faust calls a store: passes the life cycle on to the holder.  Every failure ends the process, because stock
    recovery logs an error while applying a changelog and goes on without the record."""

    def __init__(self, *args: Any, holder: Holder, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.holder = holder

    def persisted_offset(self, tp: TP) -> int:
        """Changelog offset applied.  Never None: Faust would keep the offset of an earlier assignment."""
        return self.holder.applied(tp.partition)

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """The position is written with the rows, not by Faust."""

    async def need_active_standby_for(self, tp: TP) -> bool:
        return False

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Runs before the high-water marks are read, so recovery reads up to and including our `own`."""
        actives = self.app.assignor.assigned_actives()
        numbers = {tp.partition for tp in actives if tp.topic == self.holder.changelog and tp in assigned}
        await _or_end(self.holder.spec.name, lambda: self.holder.take_over(numbers))

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        numbers = {tp.partition for tp in active_tps if tp.topic == self.holder.changelog}
        await _or_end(self.holder.spec.name, lambda: self.holder.open(numbers))

    def apply_changelog_batch(
        self, batch: Iterable[Any], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Nothing: a holding reads its changelog itself (`Holding.open`).

        Stock recovery reads through the worker's one consumer, from wherever that stands and with what a rebalance
        leaves of its fetches.  A chunk from behind our own `own` says that everything before it is applied: once it was
        the `own` alone, and a restore passed over ten thousand records without a word.
        """

    async def on_stop(self) -> None:
        await self.holder.release()

    # What a store must offer and ours never does: it holds no mapping, and Faust keeps no backups of it.

    def reset_state(self) -> None:
        """Nothing to forget: the folder belongs to the holding."""

    async def backup_partition(self, *_args: Any, **_kwargs: Any) -> None:
        raise NotImplementedError("a store is restored from its changelog, not from a backup")

    def restore_backup(self, *_args: Any, **_kwargs: Any) -> None:
        raise NotImplementedError("a store is restored from its changelog, not from a backup")


class LegTable(faust.Table[Any, Any]):
    """The table class to give to the app: `App(Table=LegTable)`, then `app.Table(name, holder=...)`."""

    def __init__(self, app: Any, *, holder: Holder, **kwargs: Any) -> None:
        self.holder = holder
        # 1 has a meaning of its own in recovery (the partition stays resumed); a chunk is a batch anyway.
        kwargs["recovery_buffer_size"] = 2
        super().__init__(app, **kwargs)

    def _changelog_topic_name(self) -> str:
        return self.holder.changelog

    def _new_store(self) -> LegStore:
        return LegStore("milepost://", self.app, self, table_name=self.name, holder=self.holder, loop=self.loop)


class LegTableManager(TableManager):
    """Stock, without the second it sleeps at each start to let tables be declared: ours are, before the app starts."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


async def _or_end(name: str, step: Callable[[], Any]) -> None:
    """Run a step of the life cycle; Faust swallows or crashes half-way on its errors, so they end the process here."""
    try:
        await step()
    except Zombie as error:
        end(f"{name}: another worker has the partition: {error}", ZOMBIE)
    except Exception as error:  # noqa: BLE001 - Faust would swallow it, or crash half-way
        end(f"{name}: cannot take its partitions: {error}", error=error)
