"""Mapping: how the rows of a table become events, as a YAML file says.

    org: acme                     # or --org
    source: tickets
    type: ticket.closed           # or {column: Kind}
    id: Ticket                    # a column; left out: a hash of the row, so that equal rows are one event
    time: {column: Closed, format: "%d.%m.%Y %H:%M", zone: Europe/Berlin}
    data:
      customer: Customer          # text of a column (of NDJSON: its value, a.b for b below a)
      hours: {column: Hours, as: number, decimal: ","}
      priority: {column: Prio, values: {H: high, L: low}, required: true}
      channel: {value: import}    # the same for all

`format` is rfc3339 (default), unix, unix_ms, or what strptime takes; without a zone in the text `zone` is needed.
Empty cells are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from milepost.schemas.errors import BundleError, ContractError, DeclarationError
from milepost.schemas.times import time_ms
from milepost.topology.document import Document
from milepost.topology.document import Path as Place
from milepost.topology.expressions import closest
from milepost.topology.faults import NAME, Shape, read_model

FIELDS_MAX: Final = 500
BYTES_MAX: Final = 1024 * 1024
"""Of a mapping."""
FIELD: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_RFC: Final = "rfc3339"
_UNIX: Final = {"unix": 1000, "unix_ms": 1}
_TRUE: Final = frozenset({"true", "yes", "y", "t", "1"})
_FALSE: Final = frozenset({"false", "no", "n", "f", "0"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
FieldName = Annotated[str, StringConstraints(pattern=FIELD)]
Row = Mapping[str, Any]


class Unfit(ValueError):
    """A row that is no event: what was expected, and the column."""

    def __init__(self, column: str, said: str) -> None:
        super().__init__(column, said)
        self.column, self.said = column, said


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=False)


class TimeText(_Model):
    column: Text
    format: Text = _RFC
    zone: Text | None = None


class FieldText(_Model):
    column: Text | None = None
    value: str | int | float | bool | None = None
    kind: Literal["text", "number", "integer", "boolean", "json"] | None = Field(None, alias="as")
    values: dict[str, str | int | float | bool] | None = None
    decimal: Literal[".", ","] = "."
    required: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> FieldText:
        if (self.column is None) == (self.value is None):
            raise ValueError("a field has a column, or a value that is the same for all")
        return self


class TypeText(_Model):
    column: Text | None = None
    value: Text | None = None

    @model_validator(mode="after")
    def _one_of(self) -> TypeText:
        if (self.column is None) == (self.value is None):
            raise ValueError("the type is the same for all, or has a column")
        return self


def _column(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


def _constant(value: object) -> object:
    return {"value": value} if isinstance(value, str) else value


class MappingText(_Model):
    source: Text
    type: Annotated[TypeText, BeforeValidator(_constant)]
    time: Annotated[TimeText, BeforeValidator(_column)]
    data: Annotated[
        dict[FieldName, Annotated[FieldText, BeforeValidator(_column)]], Field(min_length=1, max_length=FIELDS_MAX)
    ]
    org: Text | None = None
    id: Text | None = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    encoding: Text = "utf-8-sig"


SHAPE: Final = Shape(
    whole="a mapping of rows",
    models={(): MappingText, ("time",): TimeText, ("type",): TypeText, ("data", "*"): FieldText},
    patterns={NAME: "a name of small letters", FIELD: "a name of letters, digits and _ that begins with a letter"},
)


@dataclass(frozen=True, slots=True)
class RowMapping:
    """A mapping, ready for rows.  zone: of times that have none"""

    text: MappingText
    document: Document
    org: str
    zone: ZoneInfo | None

    @property
    def columns(self) -> dict[str, Place]:
        """What it reads: column -> its place in the mapping."""
        named: list[tuple[str | None, Place]] = [
            (self.text.time.column, ("time", "column")),
            (self.text.id, ("id",)),
            (self.text.type.column, ("type", "column")),
            *((one.column, ("data", name, "column")) for name, one in self.text.data.items()),
        ]
        found: dict[str, Place] = {}
        for column, place in named:
            if column is not None:
                found.setdefault(column, place)
        return found

    def event(self, row: Row, cell: Callable[[Row, str], Any]) -> dict[str, Any]:
        """The event of a row.  cell: how a column is read; None: it is not there, or empty.  Raises Unfit."""
        data = {}
        for name, one in self.text.data.items():
            value = one.value if one.column is None else _value(cell(row, one.column), one, one.column)
            if value is not None:
                data[name] = value
        type, when = self.text.type.value, self.text.time.column
        if type is None:
            column = str(self.text.type.column)
            type = _needed(cell(row, column), column)
        time = self._time(_needed(cell(row, when), when))
        id = self._id(row, cell)
        return {"org": self.org, "source": self.text.source, "id": id, "type": type, "time": time, "data": data}

    def missing(self, known: Mapping[str, Any]) -> BundleError | None:
        """What the mapping reads and a table does not have."""
        found = [
            self.document.finding(place, f"the table has no column {column!r}", guess=closest(column, known))
            for column, place in self.columns.items()
            if column not in known
        ]
        return BundleError(found) if found else None

    def _id(self, row: Row, cell: Callable[[Row, str], Any]) -> str:
        if self.text.id is not None:
            return _needed(cell(row, self.text.id), self.text.id)
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def _time(self, text: str) -> str:
        wanted = self.text.time
        try:
            if wanted.format in _UNIX:
                moment = _EPOCH + timedelta(milliseconds=float(text) * _UNIX[wanted.format])
            elif wanted.format == _RFC:
                moment = datetime.fromisoformat(text.strip())
            else:
                moment = datetime.strptime(text.strip(), wanted.format)
        except (ValueError, OverflowError):
            raise Unfit(wanted.column, f"a time was expected as {wanted.format}, {text[:40]!r} came") from None
        if moment.tzinfo is None:
            if self.zone is None:
                raise Unfit(wanted.column, f"{text[:40]!r} has no zone; fix: `zone:` in the mapping's time")
            local, moment = moment, moment.replace(tzinfo=self.zone)
            if moment.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None) != local:
                raise Unfit(wanted.column, f"{text[:40]!r} is no time of {self.zone.key}: clocks went forward")
        told = moment.isoformat()
        try:
            time_ms(told)
        except ContractError as error:
            raise Unfit(wanted.column, f"{text[:40]!r}: {error.detail}") from None
        return told


def mapping_of(file: Path, org: str | None) -> RowMapping:
    """The mapping in a file."""
    try:
        with file.open("rb") as held:
            return read_mapping(str(file), held.read(BYTES_MAX), org)
    except OSError as error:
        expected = "a YAML file was expected that says how rows become events"
        raise DeclarationError(f"{file} cannot be read: {error.strerror}; {expected}") from error


def read_mapping(file: str, text: bytes, org: str | None) -> RowMapping:
    """The mapping in a file.  Raises BundleError with every finding, DeclarationError without an organisation."""
    found, document = read_model(file, text, MappingText, SHAPE)
    name = org or found.org
    if name is None:
        raise DeclarationError(f"{file} names no organisation; fix: org: … in it, or --org")
    zone = None
    if found.time.zone is not None:
        try:
            zone = ZoneInfo(found.time.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            said = f"a zone as in Europe/Berlin was expected, {found.time.zone!r} came"
            raise BundleError([document.finding(("time", "zone"), said)]) from None
    return RowMapping(found, document, name, zone)


def _needed(value: Any, column: str) -> str:
    if value is None:
        raise Unfit(column, "it is empty")
    return value if isinstance(value, str) else json.dumps(value)


def _value(value: Any, wanted: FieldText, column: str) -> Any:
    """A cell as its field's kind."""
    if value is None:
        if wanted.required:
            raise Unfit(column, "it is empty, and required")
        return None
    if wanted.values is not None:
        if str(value) not in wanted.values:
            raise Unfit(column, f"one of {', '.join(wanted.values)} was expected, {str(value)[:40]!r} came")
        return wanted.values[str(value)]
    if wanted.kind is None or (wanted.kind == "text" and isinstance(value, str)):
        return value
    try:
        return _KINDS[wanted.kind](value, wanted.decimal)
    except (ValueError, OverflowError):
        raise Unfit(column, f"{_SAID[wanted.kind]} was expected, {str(value)[:40]!r} came") from None


def _text(value: Any, _: str) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any, decimal: str) -> str:
    """A number's text with a point, without what parts thousands."""
    text = str(value).strip()
    if isinstance(value, bool) or "_" in text:
        raise ValueError(text)
    return text.replace(".", "").replace(",", ".") if decimal == "," else text


def _number(value: Any, decimal: str) -> float:
    number = float(_plain(value, decimal))
    if number - number != 0:
        raise ValueError("no number of JSON")
    return number


def _integer(value: Any, decimal: str) -> int:
    text = _plain(value, decimal)
    try:
        return int(text)
    except ValueError:
        if not (number := float(text)).is_integer():
            raise
        return int(number)


def _boolean(value: Any, _: str) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(text)
    return text in _TRUE


def _json(value: Any, _: str) -> Any:
    return json.loads(value) if isinstance(value, str) else value


_KINDS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "text": _text, "number": _number, "integer": _integer, "boolean": _boolean, "json": _json,
}  # fmt: skip
_SAID: Final = {
    "text": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false", "json": "JSON",
}  # fmt: skip
