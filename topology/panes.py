"""Panes and known-time buckets: how time is cut.

Panes are UTC, 15 minutes and one day.  A known-time bucket's width is a pure function of (pane, k) (design §5): 15 min
while k < pane end + 24 h, 1 h while k < pane end + 90 d, 1 d after, aligned to the UTC epoch.  A bucket is named by its
end, because a bucket counts when it *ends* at or before the moment asked for.
"""

from __future__ import annotations

PANE_MS = 15 * 60_000
HOUR_MS = 4 * PANE_MS
DAY_MS = 24 * HOUR_MS
PANES_A_DAY = DAY_MS // PANE_MS


def pane_of(t_ms: int) -> int:
    """The number of the 15-minute pane that holds `t_ms`: t div 15 min since the epoch, floor."""
    return t_ms // PANE_MS


def day_of(pane: int) -> int:
    """The number of the UTC day that holds the pane."""
    return pane // PANES_A_DAY


def bucket_end(pane: int, k_ms: int) -> int:
    """The end, in quarter hours since the epoch, of the known-time bucket that holds `k_ms` for a fact in `pane`."""
    pane_end_ms = (pane + 1) * PANE_MS
    if k_ms < pane_end_ms + DAY_MS:
        width = 1
    elif k_ms < pane_end_ms + 90 * DAY_MS:
        width = HOUR_MS // PANE_MS
    else:
        width = PANES_A_DAY
    return (k_ms // PANE_MS // width + 1) * width
