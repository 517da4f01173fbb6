"""Resuming: a file of events whose sending was cut short goes on where it ended.

    lines ──▶ requests ──▶ answered ──▶ noted in the home: so many lines and bytes, their hash, what became of them
    the same command again ──▶ do the file's first bytes still have that hash, and does the log know the last event?
                                 yes ──▶ on from there, the counts included        no ──▶ from the file's beginning

The note is there for speed and for whole counts, not for truth: what is sent twice is a duplicate and changes nothing.
So it is written every two seconds and when the run ends early, and is taken away when the run ends well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from milepost.ops.broker import Say, silent
from milepost.ops.client import Client
from milepost.ops.send import Item, Outcome, SendReport, known, lines_of, parsed, send_events
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, MilepostError, StoreError

SAVE_S: Final = 2.0
PIECE_BYTES: Final = 1024 * 1024
_FORMAT: Final = 1


@dataclass(slots=True)
class Note:
    """How far a file was sent.

    lines, size: of the file that were answered;  digest: of these bytes
    probe:       the last event that was taken: does the log know it?
    report:      what became of the lines
    """

    file: Path
    lines: int = 0
    size: int = 0
    digest: str = ""
    probe: Any = None
    report: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Note:
        """The note in a file; an empty one where there is none, or none that can be read: then all is sent."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            held = json.loads(file.read_bytes())
            if held["format"] == _FORMAT:
                return cls(file, int(held["lines"]), int(held["size"]), held["digest"], held["probe"], held["report"])
        return cls(file)

    def save(self) -> None:
        held = {
            "format": _FORMAT, "lines": self.lines, "size": self.size, "digest": self.digest, "probe": self.probe,
            "report": self.report,
        }  # fmt: skip
        fresh = self.file.with_suffix(f".{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as out:
                json.dump(held, out)
            fresh.replace(self.file)
        except OSError as error:
            raise StoreError(f"what was sent cannot be noted in {self.file}: {error}; fix: room, or rights") from error


class CutShort(StoreError):
    """Sending ended early: Ctrl-C (`asked`), or a worker that is gone.  `report`: what became of the lines before."""

    def __init__(self, why: str, report: SendReport, lines: int, *, asked: bool = False) -> None:
        super().__init__(why, report, lines)
        self.why, self.report, self.lines, self.asked = why, report, lines, asked

    def __str__(self) -> str:
        fix = "fix: the same command again goes on from there, and nothing counts twice"
        return f"{self.why}; {self.lines:,} lines are answered ({self.report.text().splitlines()[0]}); {fix}"


def send_file(
    client: Client,
    settings: Settings,
    file: Path,
    report: SendReport,
    *,
    anew: bool = False,
    outcomes: Path | None = None,
    say: Say = silent,
) -> int:
    """POST the lines of a file, from where an earlier run was cut short; answers how many lines it had sent.

    anew:     from the file's beginning, whatever was sent before
    outcomes: where what became of each line is written; a run that was killed may have told the last ones already
    Raises DeclarationError, StoreError, Refused; CutShort where the worker is gone, or Ctrl-C came.
    """
    with _opened(file) as stream:
        note = Note.read(_place(settings, file))
        done = hashlib.blake2b(digest_size=16)
        if anew or not _holds(client, note, stream, done):
            note, done = Note(note.file), hashlib.blake2b(digest_size=16)
        stream.seek(note.size)
        before = note.lines
        if before:
            say(f"{file}: {before:,} lines were sent before, it goes on from there (--again begins anew)")
            _restore(report, note.report)
        run = _Run(note=note, stream=stream, done=done, report=report, whole=os.fstat(stream.fileno()).st_size)
        try:
            with told_to(outcomes, report, behind=before > 0):
                send_events(client, run.items(), report, say=say, taken=run.taken, left=run.left)
        except (KeyboardInterrupt, MilepostError) as error:
            run.save()
            _restore(report, note.report)  # a request that was cut in the middle of counting is counted by the next run
            match error:
                case KeyboardInterrupt():
                    raise CutShort("stopped by Ctrl-C", report, note.lines, asked=True) from error
                case StoreError():
                    raise CutShort(str(error), report, note.lines) from error
            raise
    note.file.unlink(missing_ok=True)
    return before


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run over a file.

    under_way: (number, end in bytes) of the lines that were read and are not answered yet
    done:      the hash of what lies before `hashed`
    """

    note: Note
    stream: BinaryIO
    done: Any
    report: SendReport
    whole: int
    under_way: deque[tuple[int, int]] = field(default_factory=deque)
    hashed: int = 0
    first: int = 0
    begun: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.hashed = self.first = self.note.size

    def items(self) -> Iterator[Item]:
        return parsed(self._lines(), first=self.note.lines + 1)

    def _lines(self) -> Iterator[bytes]:
        number, end = self.note.lines, self.note.size
        for line, size in lines_of(self.stream):
            number, end = number + 1, end + size
            self.under_way.append((number, end))
            yield line

    def taken(self, items: Sequence[Item]) -> None:
        note, last = self.note, items[-1][0]
        while self.under_way and self.under_way[0][0] <= int(last):
            note.lines, note.size = self.under_way.popleft()
        note.probe = note.probe if self.report.taken is None else self.report.taken
        note.report = _held(self.report)
        if time.monotonic() - self.saved >= SAVE_S:
            self.saved = time.monotonic()
            self.save()

    def save(self) -> None:
        note = self.note
        if not note.lines:
            return
        while self.hashed < note.size:
            piece = os.pread(self.stream.fileno(), min(PIECE_BYTES, note.size - self.hashed), self.hashed)
            if not piece:
                break  # the file became shorter: its hash will not be this one
            self.done.update(piece)
            self.hashed += len(piece)
        note.digest = self.done.hexdigest()
        note.save()

    def left(self) -> str:
        """What else the progress says: the share, the rate, and how long the rest will take."""
        seconds, size = time.monotonic() - self.begun, self.note.size - self.first
        if not self.whole or not size:
            return ""
        rest = (self.whole - self.note.size) * seconds / size
        return f", {100 * self.note.size // self.whole} %, about {rest:.0f} s left"


def _holds(client: Client, note: Note, stream: BinaryIO, done: Any) -> bool:
    """Whether a note is of what lies before it in the file, and of this log.  `done` takes the bytes."""
    if not note.lines or note.probe is None or os.fstat(stream.fileno()).st_size < note.size:
        return False
    rest = note.size
    while rest and (piece := stream.read(min(PIECE_BYTES, rest))):
        done.update(piece)
        rest -= len(piece)
    return done.hexdigest() == note.digest and known(client, note.probe)


def _held(report: SendReport) -> dict[str, Any]:
    return {
        "outcomes": dict(report.outcomes), "problems": list(report.problems), "last_receipt": report.last_receipt,
        "receipts": dict(report.receipts),
    }  # fmt: skip


def _restore(report: SendReport, held: Mapping[str, Any]) -> None:
    report.outcomes = Counter(held.get("outcomes", {}))
    report.problems = list(held.get("problems", ()))
    report.last_receipt = str(held.get("last_receipt", ""))
    receipts = held.get("receipts", {})
    report.receipts = {str(place): (str(receipt), org) for place, (receipt, org) in receipts.items()}


def _place(settings: Settings, file: Path) -> Path:
    """Where the note of a file lies: beside those of `connect`, which `reset` deletes."""
    name = hashlib.blake2b(os.fsencode(file.resolve()), digest_size=16).hexdigest()
    return settings.home / "connect" / (settings.namespace or "default") / f"send-{name}.json"


def is_readable(file: Path) -> None:
    """DeclarationError where there is no such file, or none that can be read."""
    with _opened(file):
        pass


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if not file.is_file():
        what = "is not a file" if file.exists() else "is not there"
        raise DeclarationError(f"{file} {what}; expected a file with one JSON event a line, or - for stdin")
    try:
        stream = file.open("rb")
    except OSError as error:
        raise DeclarationError(f"{file} cannot be read: {error.strerror}") from error
    with stream:
        yield stream


@contextlib.contextmanager
def told_to(file: Path | None, report: SendReport, *, behind: bool = False) -> Iterator[None]:
    """Write what becomes of each item to a file, one JSON object a line.  behind: what the file holds stays."""
    if file is None:
        yield
        return
    try:
        out = file.open("ab" if behind else "wb")
    except OSError as error:
        raise DeclarationError(f"{file} cannot be written: {error.strerror}") from error

    def write(outcome: Outcome) -> None:
        out.write(json.dumps(outcome).encode() + b"\n")

    with out:
        report.each = write
        yield
