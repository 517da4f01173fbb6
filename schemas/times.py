"""Times: RFC 3339 text to milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from milepost.schemas.errors import ContractError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_SECONDS: Final = {f"{second:02d}": second * 1000 for second in range(60)}
_RESTS: Final = {"Z": 0} | {f".{ms:03d}Z": ms for ms in range(1000)}


def time_ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time with a zone; finer digits are cut.  ContractError otherwise."""
    second_ms, rest_ms = _SECONDS.get(text[17:19]), _RESTS.get(text[19:])
    if second_ms is not None and rest_ms is not None:
        return _minute_ms(text[:17]) + second_ms + rest_ms  # UTC, as most are sent
    return _time_ms(text)


@lru_cache(maxsize=4096)
def _minute_ms(text: str) -> int:
    """Of the beginning of a time in UTC, up to its seconds: events that come together share it."""
    return _time_ms(text + "00Z")


def _time_ms(text: str) -> int:
    if (
        len(text) < 20
        or len(text) > 40
        or text[4] != "-"
        or text[7] != "-"
        or text[10] not in "Tt "
        or text[13] != ":"
        or text[16] != ":"
    ):
        raise ContractError("contract_violation", "time is not RFC 3339 (expected 2013-01-01T05:17:00Z)")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ContractError(
            "contract_violation", f"time is not RFC 3339: {str(error).split(':', 1)[0][:120]}"
        ) from error
    if moment.tzinfo is None:
        raise ContractError("contract_violation", "time has no zone (expected a Z or an offset at its end)")
    t_ms = (moment - _EPOCH) // _MS
    if t_ms < 0:
        raise ContractError("contract_violation", "time lies before 1970; times are kept from 1970-01-01T00:00:00Z on")
    return t_ms
