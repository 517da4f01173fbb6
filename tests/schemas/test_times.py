"""Times: the quick way says what the plain one says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.schemas.errors import ContractError
from milepost.schemas.times import time_ms

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(0, 253_402_300_799_999), st.sampled_from(("T", "t", " ")), st.booleans())
def test_a_time_in_utc_is_its_milliseconds(ms: int, between: str, whole: bool) -> None:
    """A time written with a Z, with three digits or none behind its second, is so many milliseconds."""
    ms = ms // 1000 * 1000 if whole else ms
    at = EPOCH + timedelta(milliseconds=ms)
    written = f"{at:%Y-%m-%d}{between}{at:%H:%M:%S}" + ("" if whole else f".{ms % 1000:03d}") + "Z"
    assert time_ms(written.zfill(len("2000-01-01T00:00:00Z") if whole else len("2000-01-01T00:00:00.000Z"))) == ms


@pytest.mark.parametrize(
    "text",
    [
        "2013-01-01T05:17:60Z", "2013-01-01T05:17:+5Z", "2013-01-01T05:17: 5Z", "2013-01-01T05:61:00Z", "05Z",
        "2013-13-01T05:17:00.000Z", "1969-12-31T23:59:59.999Z", "2013-01-01T05:17:00.1_0Z", "2013-01-01X05:17:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    """Each of these is refused, however like a time it looks."""
    for _ in range(2):
        with pytest.raises(ContractError):
            time_ms(text)
