"""Quality questions: how sources keep what their contracts promise, now or at a moment that has passed.

    basis       records known   promises of
    latest      by now          then            up to where the ticks have come
    as_shown    before T        then
    corrected   before T        now             what today's promises would have said

What is asked about is known time, so the past differs by the promises alone.  An answer reads a week back; a breach
that began earlier is shown with its beginning where a gap tells it, else cut at the week.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from milepost.topology import bases, breaches, quality
from milepost.topology.asked import organisation
from milepost.topology.bases import Moment, written
from milepost.topology.breach_records import KINDS, Kind
from milepost.topology.breaches import SCHEMA, Breach, Phase, Timeline, Window
from milepost.topology.completeness import progress_of, told
from milepost.topology.definitions import Source
from milepost.topology.heard import Heard
from milepost.topology.panes import DAY_MS, PANE_MS, PANES_A_DAY
from milepost.topology.quality import Counted, Counts, Pane
from milepost.topology.reading import Reader
from milepost.topology.refusals import UnknownSource, closest
from milepost.topology.steps import Steps, gather

BACK_MS: Final = 7 * DAY_MS
"""So far back an answer looks for breaches."""
SUMMED_MS: Final = DAY_MS
"""What is counted by type and by reason is counted over so long."""
BREACHES_MAX: Final = 50
"""Breaches that an answer lists of a source, the latest ones."""
WINDOWS_MAX: Final = 24
"""Windows of volume that an answer lists, the latest ones."""
State = Kind | Literal["ok", "waiting", "unwatched"]
"""waiting: nothing came since it was defined;  unwatched: nothing is promised"""
_STATES: Final[Mapping[str, State]] = {"no_expectation": "unwatched", "no_events": "waiting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityQuestion:
    """What is asked.  Without source every source, without at now."""

    now_ms: int
    org: str | None = None
    source: str | None = None
    at_ms: int | None = None
    basis: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was counted of a source, and the breaches in it.

    until_ms: how far it is judged;  phase: what is promised there; None: nothing
    """

    timeline: Timeline
    panes: Mapping[int, Pane]
    until_ms: int
    phase: Phase | None
    found: Sequence[Breach]

    @property
    def awaited_ms(self) -> int | None:
        return None if self.phase is None else self.timeline.awaited_ms(self.phase.begins_ms)


class QualityQuestions:
    """The questions about sources, over a reader."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def states(self, question: QualityQuestion, offset: int, limit: int) -> Steps[dict[str, Any]]:
        """A page of sources by name, each with what it promises, what came, and its breaches."""
        moment = bases.moment(question.basis, question.at_ms, question.now_ms)
        org = organisation(self.reader, question.org)
        history = self.reader.decisions.history[org]
        known = self.reader.decisions.catalog(org, moment.decided_at)
        assert known is not None, "an organisation that is known has definitions"
        sources = known[0].sources
        if question.source is not None and question.source not in sources:
            raise UnknownSource(
                f"{org} has no source {question.source[:64]!r}",
                guess=closest(question.source, sources),
                fix=f"one of {', '.join(sorted(sources)[:20])}" if sources else None,
            )
        names = sorted(sources) if question.source is None else [question.source]
        page = names[offset : offset + limit]
        seen_ms, sent = yield from self._told(org)
        until_ms = None if seen_ms is None else seen_ms if moment.basis == "latest" else min(seen_ms, moment.at_ms)
        heard = yield from self._heard([(org, name) for name in page], moment, sent)
        rows = []
        for name in page:
            judged = None
            promised = breaches.phases(history, name, now=moment.basis == "corrected")
            if until_ms is not None and promised:
                judged = yield from judge(self.reader, (org, name), promised, until_ms, _stop(moment))
            newest = sent.get((org, name)) if moment.basis == "latest" else None
            rows.append(_row(sources[name], judged, newest, heard.get(name)))
            yield None
        return {
            "org": org,
            "at": written(moment.at_ms),
            "basis": moment.basis,
            "judged_to": None if until_ms is None else written(until_ms),
            "sources": rows,
            "next": str(offset + limit) if offset + limit < len(names) else None,
        }

    def _told(self, org: str) -> Steps[tuple[int | None, dict[tuple[str, str], tuple[int, int]]]]:
        """(up to when the ticks of all raw partitions have come, source -> newest event time and known time)."""
        progresses = yield from progress_of(self.reader, [0])
        passed = [one.k_ms for one in progresses[0].values()]
        return min(passed) if len(passed) >= self.reader.partitions else None, told(progresses)[0]

    def _heard(
        self, sources: Sequence[tuple[str, str]], moment: Moment, sent: Mapping[tuple[str, str], tuple[int, int]]
    ) -> Steps[dict[str, int]]:
        """Source -> the end of the quarter of an hour up to which it had sent by then."""
        if moment.known_until is None and moment.basis == "latest":
            return {name: (sent[org, name][0] // PANE_MS + 1) * PANE_MS for org, name in sources if (org, name) in sent}
        parts = [
            Heard(partition=one, sources=tuple(sources), since=moment.end, until=moment.end)
            for one in range(self.reader.partitions)
        ]
        found: dict[str, int] = {}
        for stairs in (yield from gather(self.reader, parts)):
            for (_, name), some in zip(sources, stairs, strict=True):
                if some:
                    found[name] = max(found.get(name, 0), (some[-1][1] + 1) * PANE_MS)
        return found


def judge(
    reader: Reader, sent: tuple[str, str], promised: Sequence[Phase], until_ms: int, stop: int, back_ms: int = BACK_MS
) -> Steps[Judged]:
    """The breaches of a source of the last while before `until_ms`.  stop: panes before it count"""
    since_ms = max(0, until_ms - back_ms)
    concern = [one for one in promised if one.stop_ms > since_ms and one.start_ms <= until_ms]
    phase = concern[-1] if concern and concern[-1].stop_ms > until_ms else None
    if not concern:
        return Judged(timeline=Timeline({}, since_ms), panes={}, until_ms=until_ms, phase=None, found=())
    widest = max((breaches.width_ms(kind, one.expect) or 0 for one in concern for kind in KINDS[1:]), default=0)
    parts = [
        Counted(
            partition=number,
            sent=sent,
            start=max(0, since_ms - widest) // PANE_MS,
            stop=stop,
            begins=concern[0].begins_ms // PANE_MS // PANES_A_DAY,
        )
        for number in range(reader.partitions)
    ]
    counts = Counts()
    for rows in (yield from gather(reader, parts)):
        counts.add(rows)
        yield None
    timeline = Timeline(counts.panes, since_ms)
    found = breaches.breaches(timeline, concern, until_ms)
    return Judged(timeline=timeline, panes=counts.panes, until_ms=until_ms, phase=phase, found=found)


def _stop(moment: Moment) -> int:
    return bases.FOREVER if moment.basis == "latest" else moment.end


def _row(source: Source, judged: Judged | None, newest: tuple[int, int] | None, heard_to: int | None) -> dict[str, Any]:
    """A source as it is answered."""
    reason = _reason(source, judged)
    lasting = [] if judged is None else breaches.lasting(judged.found)
    state: State | None = lasting[0] if lasting else "ok"
    if reason is not None and not lasting:
        state = _STATES.get(reason)
    since = [one.begin_ms for one in judged.found if one.end_ms is None and one.kind == state] if judged else []
    return {
        "source": source.name,
        "owner": source.owner,
        "state": state,
        "reason": reason,
        "since": written(since[-1]) if since else None,
        "breaches": lasting,
        "freshness": _freshness(judged, reason, lasting, newest, heard_to),
        "volume": _volume(judged, reason, lasting),
        "unmatched": _unmatched(judged, reason, lasting),
        "schema": _schema(judged, reason, lasting),
        "types": dict(sorted(_types(judged).items())),
        "history": [_breach(one) for one in (judged.found[::-1] if judged else ())[:BREACHES_MAX]],
    }


def _reason(source: Source, judged: Judged | None) -> str | None:
    """Why a source is not judged; None: it is."""
    if judged is None:
        return "no_ticks" if quality.watched(source) else "no_expectation"
    if judged.phase is None:
        return "no_expectation"
    return "no_events" if judged.awaited_ms is None else None


def _kept(kind: Kind, promised: object, reason: str | None, lasting: Sequence[Kind]) -> dict[str, Any]:
    """Whether a promise is kept; None with the reason where that is not known."""
    if reason is None and promised is None:
        reason = "no_expectation"
    return {"ok": None if reason is not None else kind not in lasting, "reason": reason}


def _freshness(
    judged: Judged | None,
    reason: str | None,
    lasting: Sequence[Kind],
    newest: tuple[int, int] | None,
    heard_to: int | None,
) -> dict[str, Any]:
    limit = judged.phase.expect.freshness_ms if judged is not None and judged.phase is not None else None
    last = judged.timeline.arrivals[-1][1] if judged is not None and judged.timeline.arrivals else None
    if last is None and newest is not None:
        last = newest[1]
    until = judged.until_ms if judged is not None else None
    return {
        "expected_ms": limit,
        **_kept("stale", limit, reason, lasting),
        "newest_event": None if newest is None else written(newest[0]),
        "newest_known": None if last is None else written(last),
        "heard_to": None if heard_to is None else written(heard_to),
        "age_ms": None if last is None or until is None else max(0, until - last),
    }


def _last(kind: Kind, judged: Judged | None, reason: str | None) -> tuple[Window | None, str | None]:
    """The last whole window that counts, or why there is none."""
    if reason is not None or judged is None or judged.phase is None:
        return None, reason
    expect = judged.phase.expect
    if (expect.volume_min if kind == "silent" else expect.unmatched_max) is None:
        return None, "no_expectation"
    width, awaited = breaches.width_ms(kind, expect), judged.awaited_ms
    if width is None:
        return None, "window_too_long"
    stop = judged.until_ms // width * width
    if awaited is None or stop - width < awaited:
        return None, "no_window"
    return judged.timeline.window(stop - width, stop), None


def _volume(judged: Judged | None, reason: str | None, lasting: Sequence[Kind]) -> dict[str, Any]:
    expect = judged.phase.expect if judged is not None and judged.phase is not None else None
    window, why = _last("silent", judged, reason)
    windows: list[dict[str, Any]] = []
    if window is not None and judged is not None and expect is not None:
        width, awaited = window.stop_ms - window.start_ms, judged.awaited_ms or 0
        first = max(window.stop_ms - WINDOWS_MAX * width, -(-awaited // width) * width, judged.timeline.since_ms)
        for start in range(-(-first // width) * width, window.stop_ms, width):
            one = judged.timeline.window(start, start + width)
            kept = not breaches.broken("silent", expect, one)
            windows.append({**_span(one), "events": one.counted, "ok": kept})
    return {
        "per_ms": None if expect is None else expect.volume_per_ms,
        "min": None if expect is None else expect.volume_min,
        **_kept("silent", window, why, lasting),
        **_span(window),
        "events": None if window is None else window.counted,
        "windows": windows,
    }


def _unmatched(judged: Judged | None, reason: str | None, lasting: Sequence[Kind]) -> dict[str, Any]:
    expect = judged.phase.expect if judged is not None and judged.phase is not None else None
    window, why = _last("unmatched", judged, reason)
    examples = sorted(one for pane in _summed(judged) for one in pane.examples)[-quality.EXAMPLES_MAX :]
    return {
        "max": None if expect is None else expect.unmatched_max,
        **_kept("unmatched", window, why, lasting),
        **_span(window),
        "share": None if window is None or not window.told else window.nobodys / window.told,
        "events": None if window is None else window.nobodys,
        "of": None if window is None else window.told,
        "examples": [
            {
                "known": written(one.k_ms),
                "receipt": f"raw-events/{one.partition}@{one.offset}",
                "type": one.type,
                "key": one.key,
                "why": one.why,
            }
            for one in examples
        ],
    }


def _schema(judged: Judged | None, reason: str | None, lasting: Sequence[Kind]) -> dict[str, Any]:
    total = Pane()
    for pane in _summed(judged):
        total.add(Pane(refused=pane.refused))
    if reason == "no_events" and "schema" in lasting:
        reason = None  # what is broken is known, although nothing right has come yet
    return {
        **_kept("schema", judged, reason, lasting),
        "refused": None if judged is None else sum(one.n for one in total.refused.values()),
        "by_reason": [
            {
                "reason": name,
                "records": one.n,
                "breach": name in SCHEMA,
                "first": written(one.k_ms),
                "receipt": f"raw-events/{one.partition}@{one.offset}",
            }
            for name, one in sorted(total.refused.items())
        ],
    }


def _types(judged: Judged | None) -> Counter[str]:
    found: Counter[str] = Counter()
    for pane in _summed(judged):
        found.update(pane.types)
    return found


def _summed(judged: Judged | None) -> list[Pane]:
    """The panes of the last day."""
    if judged is None:
        return []
    first = (judged.until_ms - SUMMED_MS) // PANE_MS
    return [pane for at, pane in sorted(judged.panes.items()) if at >= first]


def _span(window: Window | None) -> dict[str, str | None]:
    return {
        "from": None if window is None else written(window.start_ms),
        "to": None if window is None else written(window.stop_ms),
    }


def _breach(one: Breach) -> dict[str, Any]:
    return {
        "breach": one.kind,
        "begin": written(one.begin_ms),
        "end": None if one.end_ms is None else written(one.end_ms),
    }
