"""Meanings: what generated code calls where an operator of Python says something else than CEL's.

`Unsure` is raised where equality with the library is not proven for the value at hand (a number written with an
exponent, a time with a leap second): then the library evaluates the whole expression.  `TooMuch` is raised beyond a
bound; no operator absorbs it.

Source: the CEL specification, "Logical Operators", "Numeric Values", "Macros", "Timestamp", "Duration".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

FAILURES: Final = (TypeError, AttributeError, LookupError, ZeroDivisionError, OverflowError, ValueError)
"""What generated code raises where CEL has an error."""

STEPS_MAX: Final = 10_000
"""Steps of the loops of one evaluation, at most: elements gone through, inner loops included."""
JOINED_MAX: Final = 65_536
"""Characters or elements of what + makes of texts or lists, at most."""

SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
# A year off CEL's own bounds (years 1 to 9999), so that no zone leads out of them.
_FIRST: Final = -62_100_000_000 * SECOND
_LAST: Final = 253_370_000_000 * SECOND
_LONGEST: Final = 2**62

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_TIME: Final = re.compile(
    r"[1-9][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])"
)
_DURATION: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9})s)?")
_TRUTHS: Final = {"true": True, "false": False}


class Unsure(Exception):
    """The value has a form for which only the library knows the answer."""


class TooMuch(Exception):
    """A bound of an evaluation.  Its text says which."""


def _and(left: Callable[[], bool], right: Callable[[], bool]) -> bool:
    try:
        decided = left()
    except FAILURES:
        if right():
            raise
        return False
    return decided and right()


def _or(left: Callable[[], bool], right: Callable[[], bool]) -> bool:
    try:
        decided = left()
    except FAILURES:
        if right():
            return True
        raise
    return decided or right()


def _any(test: Callable[[Any], bool], items: Iterable[Any]) -> bool:
    """`exists`: a chain of ||, so an error counts only when nothing decides."""
    failure = None
    for item in items:
        try:
            if test(item):
                return True
        except FAILURES as error:
            failure = error
    if failure is not None:
        raise failure
    return False


def _every(test: Callable[[Any], bool], items: Iterable[Any]) -> bool:
    """`all`: a chain of &&."""
    failure = None
    for item in items:
        try:
            if not test(item):
                return False
        except FAILURES as error:
            failure = error
    if failure is not None:
        raise failure
    return True


def _loop(steps: list[int], items: Collection[Any]) -> Collection[Any]:
    """The elements, counted before the first of them is taken."""
    return _spend(steps, items, len(items))


def _weigh(steps: list[int], items: Collection[Any] | None) -> Collection[Any] | None:
    """What is searched through inside a loop costs steps, too: an eighth of its elements, a 256th of its characters."""
    return None if items is None else _spend(steps, items, len(items) // (256 if type(items) is str else 8))


def _spend(steps: list[int], items: Collection[Any], count: int) -> Collection[Any]:
    steps[0] -= count
    if steps[0] < 0:
        raise TooMuch(f"its loops take more than {STEPS_MAX} steps")
    return items


def _join(left: Any, right: Any) -> Any:
    if len(left) + len(right) > JOINED_MAX:
        raise TooMuch(f"+ makes something longer than {JOINED_MAX}")
    return left + right


def _boolean(value: bool | None) -> bool:
    if value is None:
        raise TypeError("null is neither true nor false")
    return value


def _number(value: float | None) -> float:
    if value is None:
        raise TypeError("null is no number")
    return value


def _text(value: str | None) -> str:
    if value is None:
        raise TypeError("null is no text")
    return value


def _float(value: int | float | None) -> float | None:
    return None if value is None else float(value)


def _floats(values: Iterable[int | float | None] | None) -> list[float | None] | None:
    return None if values is None else [None if one is None else float(one) for one in values]


def _below(record: Mapping[str, Any] | None, name: str) -> Any:
    """Null below a null record."""
    return None if record is None else record[name]


def _at(items: list[Any], index: int) -> Any:
    if index < 0:
        raise IndexError("an index begins at 0")
    return items[index]


def _among(value: float, items: Collection[Any]) -> bool:
    """`in` for a value that may be NaN: Python finds the same object even when it is not equal to itself."""
    return value in items and value == value


def _divide(left: float, right: float) -> float:
    try:
        return left / right
    except ZeroDivisionError:
        if left == 0 or left != left:
            return float("nan")
        return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _int(value: float) -> int:
    whole = int(value)
    if not -(2**63) < whole < 2**63:
        raise OverflowError("beyond 64 bits")
    return whole


def _i64(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise OverflowError("beyond 64 bits")
    return value


def _quotient(left: int, right: int) -> int:
    return _i64(abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1))


def _modulo(left: int, right: int) -> int:
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def _int_of(text: str) -> int:
    if _WHOLE.fullmatch(text):
        return int(text)
    raise Unsure


def _double_of(text: str) -> float:
    if _DECIMAL.fullmatch(text):
        return float(text)
    raise Unsure


def _truth_of(text: str) -> bool:
    known = _TRUTHS.get(text)
    if known is None:
        raise (TypeError("null is no text") if text is None else Unsure)
    return known


def _text_of_number(value: float) -> str:
    """Whole numbers up to a million; how CEL writes others is the library's matter."""
    if 0 < value < 1e6 or -1e6 < value < 0:
        whole = int(value)
        if whole == value:
            return str(whole)
    if value == 0 and math.copysign(1.0, value) > 0:
        return "0"
    raise Unsure


def _text_of_truth(value: bool) -> str:
    return "true" if _boolean(value) else "false"


def _timestamp(text: str) -> int:
    """Nanoseconds since 1970."""
    if not _TIME.fullmatch(text):
        raise Unsure
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        raise Unsure from None
    return _instant((since.days * 86_400 + since.seconds) * SECOND + since.microseconds * 1000)


def _duration(text: str) -> int:
    """Nanoseconds."""
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        raise Unsure
    hours, minutes, seconds = (int(one or 0) for one in found.groups())
    return (hours * 3600 + minutes * 60 + seconds) * SECOND


def _from_seconds(seconds: int) -> int:
    return _instant(seconds * SECOND)


def _instant(ns: int) -> int:
    if not _FIRST < ns < _LAST:
        raise Unsure
    return ns


def _span(ns: int) -> int:
    if not -_LONGEST < ns < _LONGEST:
        raise Unsure
    return ns


def _day(seconds: int) -> date:
    return date.fromordinal(seconds // 86_400 + _EPOCH_DAY)


def _cut(ns: int, unit: int, limit: int) -> int:
    """Whole units of a duration, towards zero; below `limit` when it is not 0."""
    units = abs(ns) // unit % (limit or 2**62)
    return -units if ns < 0 else units


DATES: Final[Mapping[str, str]] = {
    "getFullYear": "_day({at}).year",
    "getMonth": "(_day({at}).month - 1)",
    "getDate": "_day({at}).day",
    "getDayOfMonth": "(_day({at}).day - 1)",
    "getDayOfWeek": "(({at} // 86400 + 4) % 7)",
    "getDayOfYear": "(_day({at}).timetuple().tm_yday - 1)",
    "getHours": "({at} % 86400 // 3600)",
    "getMinutes": "({at} % 3600 // 60)",
    "getSeconds": "({at} % 60)",
    "getMilliseconds": "({ns} // 1000000 % 1000)",
}
"""A function of a time -> its source: of the seconds since 1970 in its zone, `at`, or of the nanoseconds.

The first of January 1970 was a Thursday, CEL's fourth day."""

SPANS: Final[Mapping[str, tuple[int, int]]] = {
    "getHours": (3600 * SECOND, 0),
    "getMinutes": (60 * SECOND, 0),
    "getSeconds": (SECOND, 0),
    "getMilliseconds": (SECOND // 1000, 1000),
}
"""A function of a duration -> its unit, and where it begins anew (0: nowhere)."""


HELPERS: Final[Mapping[str, object]] = {name: one for name, one in list(globals().items()) if re.match("_[a-z]", name)}
"""What generated code may call."""
