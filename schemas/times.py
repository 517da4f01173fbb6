"""Times: RFC 3339 text to milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from milepost.schemas.errors import ContractError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def time_ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time with a zone; finer digits are cut.  ContractError otherwise."""
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
