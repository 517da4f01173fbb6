"""Disk: the state folders of a node, as dicts that a store of the engine's interface writes to, batch by batch.

A folder outlives the process that wrote it; it may be lost, also under a running process, or put back to an older
copy, and the disk may be full for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milepost.agents import store
from milepost.schemas.errors import StoreError

if TYPE_CHECKING:
    from tests.support.simulator.process import Process


class Folder:
    """Rows of one leg and partition on one node.  old: (time, rows) copies to fall back to."""

    def __init__(self, stamp: Any) -> None:
        self.stamp = stamp
        self.rows: dict[bytes, bytes] = {}
        self.holder: Process | None = None
        self.old: list[tuple[float, dict[bytes, bytes]]] = []


class Disk:
    """All folders of a node."""

    def __init__(self) -> None:
        self.folders: dict[str, Folder] = {}
        self.full_until = 0.0

    def open(self, process: Process, folder: Path, stamp: Any) -> SimRocks:
        """As `store.open_store`: another's folder is set aside."""
        process.io("open")
        held = self.folders.get(folder.name)
        if held is None or held.stamp != stamp:
            held = self.folders[folder.name] = Folder(stamp)
        if held.holder is not None and not held.holder.loop.dead:
            raise StoreError(f"{folder}: another process holds it")
        held.holder = process
        return SimRocks(process, folder, held)

    def set_aside(self, folder: Path) -> None:
        self.folders.pop(folder.name, None)

    def lose(self) -> None:
        """All folders are gone; a process that has them open goes on writing to what nobody will read."""
        self.folders.clear()

    def put_back(self, before: float, choose: Callable[[Sequence[Any]], Any]) -> bool:
        """Put some folder back to an older copy; whether there was one."""
        able = [one for one in self.folders.values() if one.old and (one.holder is None or one.holder.loop.dead)]
        able = [one for one in able if one.old[-1][0] >= before]
        if not able:
            return False
        folder = choose(able)
        folder.rows = dict(choose([rows for at, rows in folder.old if at >= before]))
        return True


class SimRocks:
    """An open folder, with the interface of `store.Rocks`."""

    def __init__(self, process: Process, path: Path, folder: Folder) -> None:
        self.folder = path
        self._process = process
        self._folder = folder
        self._open = True

    @property
    def closed(self) -> bool:
        return not self._open

    def get(self, key: bytes) -> bytes | None:
        return self._rows().get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self._rows()
        return [rows.get(key) for key in keys]

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self._rows()
        for key in sorted(one for one in rows if start <= one < stop):
            yield key, rows[key]

    def write(self, changes: Iterable[store.Change]) -> None:
        """All changes or none of them: the process may die before it or behind it."""
        made = list(changes)
        process, rows = self._process, self._rows()
        process.io("write")
        if process.node.disk.full_until > process.world.now:
            process.world.count("refused by a full disk")
            raise store.DiskFull(f"{self.folder}: no room")
        if process.world.chance(0.1):
            self._folder.old = [*self._folder.old[-2:], (process.world.now, dict(rows))]
        for key, value in made:
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        process.io("written")

    def delete_range(self, start: bytes, stop: bytes) -> None:
        rows = self._rows()
        for key in [one for one in rows if start <= one < stop]:
            del rows[key]

    def close(self) -> None:
        if self._open:
            self._open = False
            self._folder.holder = None

    def _rows(self) -> dict[bytes, bytes]:
        if not self._open:
            raise StoreError(f"{self.folder}: the store is closed")
        self._process.alive()
        return self._folder.rows
