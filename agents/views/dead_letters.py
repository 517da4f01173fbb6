"""Dead letters over HTTP: problems with an example each, what they keep from being counted, and their repair.

    GET  /v1/dead-letters                        problems, the newest first
    GET  /v1/dead-letters/{problem}              one of them: example, what it concerns, what was done about it
    GET  /v1/dead-letters/{problem}/members      where its records lie, page by page
    POST /v1/dead-letters/{problem}/repair       ?dry_run=true: what would become of all of them; nothing is written
                                                 else: at most 2,000 of them are sent again; `next` asks for the others

A call repairs a bounded part and says what is left, so there is no job that could be lost: who is killed in the middle
is followed by whoever asks again, and what was sent twice is sent once in effect (topology/repairs.py).

    begun is appended -> members read, mapped, judged -> those that pass are sent -> they are taken -> sent is appended
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from milepost.agents import faults
from milepost.agents.breathing import answered, breathing
from milepost.agents.views.asking import Asking, Doors, Late, Parameter, answer, hidden, included, paged, whose
from milepost.agents.views.bodies import typed_body
from milepost.agents.views.openapi import Route
from milepost.agents.views.parameters import DRY_RUN, ORG, PAGING, in_path
from milepost.agents.views.problems import Problem as Refusal
from milepost.ops.access import Role
from milepost.schemas.errors import BundleError
from milepost.topology import mapping as mappings
from milepost.topology import problems
from milepost.topology.bases import written
from milepost.topology.bundle import BYTES_MAX
from milepost.topology.by_hand import BY_MAX
from milepost.topology.catalog import Catalog, Source, load_bundle
from milepost.topology.mapping import EventMapping, read_mapping
from milepost.topology.problems import ID_BYTES, Problem, Problems, place
from milepost.topology.reading import Unavailable
from milepost.topology.refusals import BadParameter, NotFound, closest
from milepost.topology.repairs import Fate, Repairing, example, repair_id
from milepost.topology.state import Output
from milepost.topology.steps import Got, Part, Steps
from milepost.topology.trial import Trial

T = TypeVar("T")
BATCH: Final = 2_000
"""Members that one call repairs at most; of bytes `BATCH_BYTES`."""
BATCH_BYTES: Final = 16 * 1024 * 1024
PREVIEW_MAX: Final = 50_000
"""Members that a preview looks at; each takes about a kilobyte meanwhile, so one preview or repair runs at a time."""
WHYS_MAX: Final = 20
"""Reasons of one kind that an answer tells apart."""
BODY: Final = '{"mapping": {"steps": [{"rename": "data.carier", "to": "carrier"}]}, "by": "…"}'
BODY_BYTES_MAX: Final = 2 * (mappings.BYTES_MAX + BYTES_MAX)


class Repair(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a repair.

    mapping: as an object, or its YAML as text; left out: the events as they are, under the definitions in force now
    next:    where to go on, from the answer before
    replace: in the place of another repair of the problem that has begun and not ended
    files:   a bundle that is not in force: what would become of the events if it were; with dry_run only
    """

    mapping: dict[str, Any] | str | None = None
    by: str | None = None
    next: str | None = None
    replace: bool = False
    files: dict[str, str] | None = None


class Unknown(NotFound):
    title = "unknown problem"


def routes() -> tuple[Route, ...]:
    """The rows of the table for these calls."""
    one = in_path("problem", "its 16 hexadecimal digits")
    return (
        Route(
            path="/v1/dead-letters",
            role=Role.READ,
            mine=True,
            about="Problems among the dead letters, the newest first",
            answers=listed,
            parameters=(
                ORG,
                Parameter(name="source", about="of this source only"),
                Parameter(name="reason", about="of this reason only"),
                Parameter(
                    name="state",
                    about="open, repairing or repaired",
                    schema={"type": "string", "enum": ["open", "repairing", "repaired"]},
                ),
                *PAGING,
            ),
        ),
        Route(
            path="/v1/dead-letters/{problem}",
            role=Role.READ,
            mine=True,
            about="A problem: an example, what it keeps from being counted, what was done about it",
            answers=shown,
            parameters=(one,),
        ),
        Route(
            path="/v1/dead-letters/{problem}/members",
            role=Role.READ,
            mine=True,
            about="Where the records of a problem lie, and which are open",
            answers=members,
            parameters=(one, *PAGING),
        ),
        Route(
            method="POST",
            path="/v1/dead-letters/{problem}/repair",
            role=Role.OPERATE,
            mine=True,
            about="Send a problem's events again, mapped; with dry_run only say what would become of them",
            answers=repair,
            parameters=(one, DRY_RUN),
            body=BODY,
            holds=Repair,
        ),
    )


# -- questions


async def listed(doors: Doors, asking: Asking) -> web.Response:
    whole = await doors.services.problems()
    wanted = {name: asking.text(name) for name in ("org", "source", "reason", "state")}
    mine = whose(asking)
    wanted["org"] = wanted["org"] if mine is None else mine
    if wanted["state"] not in (None, "open", "repairing", "repaired"):
        guess = closest(str(wanted["state"]), ("open", "repairing", "repaired"))
        raise BadParameter("state is open, repairing or repaired", guess=guess)
    rows = [
        row
        for row in (_row(doors, whole, one) for one in whole.newest_first())
        if all(value is None or row[name] == value for name, value in wanted.items())
    ]
    offset, limit = asking.page()
    some, further = paged(rows, offset, limit)
    return answer({"problems": some, "next": further})


async def shown(doors: Doors, asking: Asking) -> web.Response:
    whole, problem = await _found(doors, asking)
    row = _row(doors, whole, problem)
    sample = None
    if problem.topic == "raw-events":
        ((_, value),) = await doors.services.raw_records([problem.example.pack()])
        sample = example(value, _source(doors, problem))
    repairs = [
        {
            "repair": one.id.hex(),
            "state": "begun" if one is problem.active else "replaced" if one.left is None else "ended",
            "by": one.by or None,
            "mapping": msgspec.json.decode(one.mapping),
            "begun": written(one.begun_ms),
            "last": written(one.last_ms),
            "sent": one.sent,
            "settled": one.settled,
            "left": one.left,
        }
        for one in problem.repairs.values()
    ]
    return answer({**row, "event": sample, "repairs": repairs})


async def members(doors: Doors, asking: Asking) -> web.Response:
    """In the order of their places; each once."""
    whole, problem = await _found(doors, asking)
    offset, limit = asking.page()
    still = set(whole.open(problem).tolist())
    some, further = paged(problem.members.tolist(), offset, limit)
    rows = [{"at": str(place(one)), "state": "open" if one in still else "repaired"} for one in some]
    return answer({"problem": problem.id.hex(), "members": rows, "next": further, "unlisted": problem.unlisted})


def _row(doors: Doors, whole: Problems, problem: Problem) -> dict[str, Any]:
    """A problem as lists show it."""
    left = len(whole.open(problem))
    return {
        "problem": problem.id.hex(),
        "state": whole.state(problem),
        **{name: getattr(problem, name) for name in ("reason", "stage", "rule", "detail", "org", "source", "type")},
        "count": len(problem.members) + problem.unlisted,
        "open": left + problem.unlisted,
        "unlisted": problem.unlisted,
        "first": written(problem.first_ms),
        "last": written(problem.last_ms),
        "last_k_ms": problem.last_ms,
        "example": str(problem.example),
        "obstacle": problem.obstacle or None,
        "concerned": problems.concerned(_catalog(doors, problem), problem),
    }


async def _found(doors: Doors, asking: Asking) -> tuple[Problems, Problem]:
    whole, text = await doors.services.problems(), asking.path["problem"]
    problem = None
    if len(text) == 2 * ID_BYTES:
        with contextlib.suppress(ValueError):
            problem = whole.problems.get(bytes.fromhex(text))
    if problem is None or hidden(asking, problem.org):
        seen = [id.hex() for id, one in whole.problems.items() if not hidden(asking, one.org)]
        guess = closest(text, seen)
        raise Unknown(f"there is no problem {text[:64]!r}", guess=guess, fix="GET /v1/dead-letters lists them")
    return whole, problem


def _catalog(doors: Doors, problem: Problem) -> Catalog | None:
    applied = doors.services.reader.decisions.history.get(problem.org)
    return applied[-1].catalog if applied else None


def _source(doors: Doors, problem: Problem) -> Source | None:
    catalog = _catalog(doors, problem)
    return None if catalog is None else catalog.sources.get(problem.source)


# -- repair


@dataclass(slots=True)
class _Tally:
    """What would become of members, or did."""

    looked: int = 0
    passing: int = 0
    still_failing_rules: Counter[str] = field(default_factory=Counter)
    failing: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    settled: Counter[str] = field(default_factory=Counter)

    def take(self, fates: Sequence[Fate]) -> None:
        for fate in fates:
            self.looked += 1
            if fate.what == "pass":
                self.passing += 1
                self.still_failing_rules.update(fate.rules)
            elif fate.what == "settled":
                self.settled[fate.why] += 1
            else:
                kind = (fate.why, fate.detail)
                if kind not in self.failing and len(self.failing) >= WHYS_MAX:
                    kind = ("other", "of many kinds")
                self.failing.setdefault(kind, [0, str(place(fate.place))])[0] += 1

    @property
    def failed(self) -> int:
        return sum(count for count, _ in self.failing.values())

    def told(self) -> dict[str, Any]:
        return {
            "looked_at": self.looked,
            "pass": self.passing,
            "fail": self.failed,
            "failing": [
                {"why": why, "detail": detail, "count": count, "example": at}
                for (why, detail), (count, at) in sorted(self.failing.items(), key=lambda one: -one[1][0])
            ],
            "settled": dict(self.settled),
            "rules_without_value": dict(self.still_failing_rules),
        }


async def repair(doors: Doors, asking: Asking) -> web.Response:
    dry_run = asking.text("dry_run") or "false"
    if dry_run not in ("true", "false"):
        raise BadParameter(f"dry_run is true or false, not {dry_run[:32]!r}")
    title = "the body is no repair"
    body = await typed_body(asking.request, Repair, bytes_max=BODY_BYTES_MAX, title=title, fix=BODY)
    if len(body.by or "") > BY_MAX:
        raise BadParameter(f"by has at most {BY_MAX} letters")
    _, problem = await _found(doors, asking)
    if problem.obstacle:
        raise Refusal(422, "this problem is not repaired by a mapping", problem.obstacle, fix="see the obstacle")
    candidate = None
    if body.files is not None:
        if dry_run != "true":
            raise Refusal(422, title, "a bundle is tried with dry_run alone", fix="apply it, then repair")
        candidate = load_bundle({name: text.encode(errors="replace") for name, text in body.files.items()})
    catalog = candidate or _catalog(doors, problem)
    source = None if catalog is None else catalog.sources.get(problem.source)
    contract = None if source is None else source.types.get(problem.type)
    mapping = read_mapping(body.mapping or {}, None if contract is None else contract.type.fields)
    work = Repairing(
        reader=doors.services.reader, problem=problem, mapping=mapping, now_ms=doors.services.now_ms(),
        trial=Trial(doors.services.reader, problem.org, candidate),
    )  # fmt: skip
    async with doors.repairing:
        whole, _ = await _found(doors, asking)
        still = whole.open(problem)[::-1].tolist()  # the newest first
        if dry_run == "true":
            return answer(await _preview(doors, work, still))
        return answer(await _part(doors, asking, work, body, still))


async def _preview(doors: Doors, work: Repairing, still: Sequence[int]) -> dict[str, Any]:
    """What would become of all members, and of the metrics."""
    problem, tally = work.problem, _Tally()
    while tally.looked < min(len(still), PREVIEW_MAX):
        records = await doors.services.raw_records(still[tally.looked : PREVIEW_MAX])
        tally.take(await _patient(doors, work.trial, work.judge(records)))
    _refuse_idle(work, tally)
    effects: list[dict[str, Any]] = []
    if problem.org in work.trial.decisions.history:
        rules = sorted(work.trial.gained | work.trial.lost)
        effects = await _patient(doors, work.trial, work.trial.effects(problem.org, rules, work.now_ms))
    return {
        "dry_run": True,
        "problem": problem.id.hex(),
        "repair": repair_id(problem, work.mapping).hex(),
        "open": len(still),
        **tally.told(),
        "metrics": effects,
    }


async def _part(doors: Doors, asking: Asking, work: Repairing, body: Repair, still: Sequence[int]) -> dict[str, Any]:
    """Repair the next part of the members, and say what is left."""
    problem, id = work.problem, repair_id(work.problem, work.mapping)
    behind = None if body.next is None else _cursor(body.next)
    todo = [one for one in still if behind is None or one < behind]
    tally, sent, settled = _Tally(), list[tuple[int, Output]](), list[int]()
    done = size = 0
    while done < min(len(todo), BATCH) and size < BATCH_BYTES:
        records = await doors.services.raw_records(todo[done:BATCH])
        done += len(records)
        fates = await _patient(doors, work.trial, work.judge(records))
        tally.take(fates)
        for fate in fates:
            if fate.output is not None:
                sent.append((fate.place, fate.output))
                size += len(fate.output.value or b"")
            elif fate.what == "settled":
                settled.append(fate.place)
    if done == len(still):
        _refuse_idle(work, tally)
    left = len(still) - len(sent) - len(settled)
    further = str(todo[done - 1]) if done < len(todo) else None
    if sent or settled or (problem.active is not None and problem.active.id == id):
        await _begin(doors, asking, id, work.mapping, body)
        await _send(doors, work, id, sent, settled)
        if further is None:
            await _append(doors, problem, problems.ended(problem, id, work.now_ms, left))
    state = "repairing" if further is not None else "open" if left else "repaired"
    return {
        "problem": problem.id.hex(), "repair": id.hex(), "state": state, **tally.told(), "sent": len(sent),
        "open": left, "next": further,
    }  # fmt: skip


async def _begin(doors: Doors, asking: Asking, id: bytes, mapping: EventMapping, body: Repair) -> None:
    """Say that the repair begins, unless that is known.  Of two that begin at a time the first in the log goes on."""
    _, problem = await _found(doors, asking)
    if problem.active is None or (problem.active.id != id and body.replace):
        made = problems.begun(
            problem, id, mapping.canonical, body.by or "", doors.services.now_ms(), replaces=body.replace
        )
        await _append(doors, problem, made)
        _, problem = await _found(doors, asking)
    if (active := problem.active) is None or active.id != id:
        other = "" if active is None else f": {active.id.hex()}, begun {written(active.begun_ms)}"
        raise Refusal(
            409,
            "another repair of the problem has begun",
            f"it has not ended{other}; what it has sent stays sent",
            fix="go on with its mapping (GET the problem shows it), or say replace: true",
        )


async def _send(
    doors: Doors, work: Repairing, id: bytes, sent: Sequence[tuple[int, Output]], settled: Sequence[int]
) -> None:
    """Send, wait until it is taken, and say so.  Killed in between: whoever goes on finds it in `seen`, or sends the
    same bytes under the same key once more."""
    half = len(sent) // 2
    offsets = await doors.services.send([output for _, output in sent[:half]])
    faults.point("repair_half")
    offsets += await doors.services.send([output for _, output in sent[half:]])
    last = {output.partition: offset for (_, output), offset in zip(sent, offsets, strict=True)}
    for partition, offset in last.items():
        with contextlib.suppress(Late):  # ingest is behind: what is left is judged again by whoever goes on
            await included(doors, f"raw-events/{partition}@{offset}", None)
    if sent or settled:
        made = problems.sent(work.problem, id, work.now_ms, [here for here, _ in sent], settled)
        await _append(doors, work.problem, made)


async def _append(doors: Doors, problem: Problem, made: tuple[bytes, bytes]) -> None:
    key, value = made
    await doors.services.send([Output(topic="dead-letters", partition=problem.partition, key=key, value=value)])


async def _patient(doors: Doors, trial: Trial, steps: Steps[T]) -> T:
    """The result of steps that change a trial: they cannot be begun anew, so each gather waits for its partitions.

    Parts of the trial's own are read here."""

    async def of_line(parts: Sequence[Part]) -> Sequence[Got]:
        until, pause_s = time.monotonic() + doors.services.patience_s, 0.02
        while True:
            try:
                return await doors.services.gather(parts)
            except Unavailable:
                if time.monotonic() + pause_s > until:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(0.25, pause_s * 2)

    async def read(parts: Sequence[Part]) -> Sequence[Got]:
        others = [part for part in parts if not trial.has(part)]
        got = iter(await of_line(others) if others else ())
        return [Got(0, await breathing(part.read(trial.beside))) if trial.has(part) else next(got) for part in parts]

    value, _ = await answered(steps, read)
    return value


def _refuse_idle(work: Repairing, tally: _Tally) -> None:
    """A step that changes no event at all is a mistake."""
    if tally.looked > sum(tally.settled.values()) and (idle := work.mapping.idle(work.touched, work.seen)):
        raise BundleError(idle)


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadParameter("next is the value of next in the answer before")
    return int(text)
