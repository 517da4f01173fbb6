"""Tables: CSV and NDJSON as events, by a mapping (mapping.py).

row ──▶ event ──▶ POST /v1/events
    └─▶ unfit: its line, its column, what was expected; the others go on
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import orjson

from milepost.ops.broker import Say, silent
from milepost.ops.client import Client
from milepost.ops.connect.mapping import Row, RowMapping, Unfit
from milepost.ops.send import Item, SendReport, send_events
from milepost.schemas.errors import DeclarationError

PREVIEW: Final = 5
Kind = Literal["csv", "ndjson"]


@dataclass(slots=True)
class TableReport:
    """What became of a table.  preview: the first events, of a dry run;  by_hash: ids are made of the rows"""

    sent: SendReport = field(default_factory=SendReport)
    rows: int = 0
    by_hash: bool = False
    dry_run: bool = False
    preview: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        return self.sent.rejected

    def as_data(self) -> dict[str, Any]:
        return {
            **self.sent.as_data(), "rows": self.rows, "id_by_hash": self.by_hash, "dry_run": self.dry_run,
            "preview": self.preview,
        }  # fmt: skip

    def text(self) -> str:
        told = [orjson.dumps(one).decode() for one in self.preview]
        if self.dry_run:
            fit = self.rows - self.rejected
            told += [f"{fit:,} of {self.rows:,} rows fit; nothing was sent", *self.sent.text().splitlines()[1:]]
        else:
            told.append(f"{self.rows:,} rows: {self.sent.text()}")
        if self.by_hash:
            told.append("no id column: an event's id is a hash of its row, so equal rows count once")
        return "\n".join(told)


def send_table(client: Client | None, kind: Kind, file: Path, mapping: RowMapping, *, say: Say = silent) -> TableReport:
    """Send the rows of a table.  Without a client nothing is sent: the first events and what does not fit are told."""
    report = TableReport(by_hash=mapping.text.id is None, dry_run=client is None)
    with _opened(file, mapping.text.encoding if kind == "csv" else "utf-8-sig") as lines:
        rows = _csv_rows(lines, mapping, report) if kind == "csv" else _json_rows(lines, report)
        items = _events(rows, mapping, _cell_of(kind), report)
        if client is not None:
            send_events(client, items, report.sent, say=say, what="rows")
            return report
        for _, event, _ in items:
            if len(report.preview) < PREVIEW:
                report.preview.append(event)
    return report


def _events(
    rows: Iterator[tuple[int, Row]], mapping: RowMapping, cell: Callable[[Row, str], Any], report: TableReport
) -> Iterator[Item]:
    for line, row in rows:
        report.rows += 1
        try:
            event = mapping.event(row, cell)
            size = len(orjson.dumps(event))
        except Unfit as unfit:
            report.sent.reject(line, f"column {unfit.column}: {unfit.said}")
        except TypeError as error:  # what JSON reads and its writer does not take: a number of more than 64 bits
            report.sent.reject(line, f"it cannot be an event: {error}")
        else:
            yield line, event, size


def _csv_rows(lines: IO[str], mapping: RowMapping, report: TableReport) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(lines, delimiter=mapping.text.delimiter, strict=True)
    try:
        head = next(reader, None)
        if head is None:
            raise DeclarationError("the file is empty; a first line with the names of the columns was expected")
        twice = sorted({name for name in head if head.count(name) > 1} & mapping.columns.keys())
        if twice:
            raise DeclarationError(f"the column {twice[0]!r} stands twice in line 1; fix: rename one")
        if (missing := mapping.missing(dict.fromkeys(head))) is not None:
            raise missing
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(head):
                report.rows += 1
                report.sent.reject(reader.line_num, f"{len(head)} cells were expected, {len(cells)} came")
                continue
            yield reader.line_num, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        said = f"line {reader.line_num}: {error}; what comes behind it was not read; fix: quotes, or the delimiter"
        raise DeclarationError(said) from error


def _json_rows(lines: IO[str], report: TableReport) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip())
        except (ValueError, RecursionError) as error:
            report.rows += 1
            where = f"column {error.colno}: " if isinstance(error, json.JSONDecodeError) else ""
            report.sent.reject(number, f"{where}not JSON: {getattr(error, 'msg', error)}")
            continue
        if not isinstance(row, dict):
            report.rows += 1
            report.sent.reject(number, "a JSON object was expected")
            continue
        yield number, row


def _cell_of(kind: Kind) -> Callable[[Row, str], Any]:
    return _cell if kind == "csv" else _below


def _cell(row: Row, column: str) -> Any:
    return row[column] if row[column].strip() else None


def _below(row: Row, column: str) -> Any:
    """The value of a column, or below it: a.b, where no column is named so."""
    if column in row:
        value = row[column]
    else:
        value = row
        for name in column.split("."):
            value = value.get(name) if isinstance(value, dict) else None
    return None if value == "" else value


@contextmanager
def _opened(file: Path, encoding: str) -> Iterator[IO[str]]:
    if not file.is_file():
        raise DeclarationError(f"{file} is not a file; the table was expected there")
    try:
        with file.open(encoding=encoding, newline="") as lines:
            yield lines
    except LookupError as error:
        raise DeclarationError(f"encoding {encoding!r} is not known; fix: utf-8, latin-1, cp1252, …") from error
    except UnicodeDecodeError as error:
        fix = "fix: `encoding:` in the mapping"
        raise DeclarationError(f"{file} is not {encoding} ({error.reason} at byte {error.start}); {fix}") from error
