"""Git: a repository's history, read as git tells it, a commit at a time.

    tips ──▶ git log --numstat -z ──▶ Commit, parents before children: what has been read is closed under parents
         ──▶ git log              ──▶ Author: as written, and the address after .mailmap

What a person may have set for their own git (mail map, renames, external diffs, signatures, merges) is set here, so
that the same commit always reads the same; nothing in the repository is run.  Text that is no UTF-8 is kept with its
odd bytes as `\\xe9`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Final

from milepost.schemas.errors import DeclarationError

_OLDEST: Final = "2.31"
"""The first git that knows all options of below."""
TOKEN_BYTES_MAX: Final = 1024 * 1024
"""A name, an address or a path at most."""
READ_BYTES: Final = 256 * 1024
_FIXED: Final = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
_SET: Final = (
    "core.fsmonitor=false", "core.commitGraph=true", "log.showSignature=false", "log.showRoot=true",
    "log.mailmap=false", "diff.renames=false", "protocol.allow=never",
)  # fmt: skip
_LOG: Final = ("log", "--stdin", "--ignore-missing", "-z", "--encoding=UTF-8", "--no-color", "--date=raw")
_DIFF: Final = (
    "--topo-order", "--reverse", "--numstat", "--no-renames", "--diff-merges=off", "--no-ext-diff", "--no-textconv",
    "--diff-algorithm=myers", "--ignore-submodules=none", "--no-relative",
)  # fmt: skip
_COMMIT: Final = ("%H", "%P", "%an", "%ae", "%ad", "%cn", "%ce", "%cd")
_AUTHOR: Final = ("%an", "%ae", "%aE")
_COUNTED: Final = re.compile(rb"\n?(\d+|-)\t(\d+|-)\t", re.DOTALL)
_DATE: Final = re.compile(r"(-?\d{1,18}) ([+-])(\d\d)(\d\d)")
_SIGNED: Final = re.compile(rb"^(author|committer) .*> ([^>\n]*)$", re.MULTILINE)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit.  `authored` and `committed` are RFC 3339, or what git holds where that is no time.

    files, added, removed: None where a shallow clone does not know what it is compared with
    """

    id: str
    parents: tuple[str, ...]
    author_name: str
    author_mail: str
    authored: str
    committer_name: str
    committer_mail: str
    committed: str
    files: int | None = 0
    added: int | None = 0
    removed: int | None = 0


@dataclass(frozen=True, slots=True)
class Author:
    """An author as commits name them, and the address that .mailmap gives them (else their own)."""

    name: str
    mail: str
    mapped: str


class Repository:
    """A repository, bare or not.  Raises DeclarationError where there is none, or no git."""

    def __init__(self, path: Path) -> None:
        program = shutil.which("git")
        if program is None:
            raise DeclarationError(f"git is not installed, or not on the PATH; fix: install git {_OLDEST} or later")
        if not path.is_dir():
            raise DeclarationError(f"{path} is not a folder; fix: the folder of a clone, or of a bare repository")
        self._command = [program, "-C", str(path), "--no-pager", *(part for one in _SET for part in ("-c", one))]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "CONFIG" in name}
        self._env = kept | _FIXED
        self._check_version()
        self.folder = Path(os.fsdecode(self._said("rev-parse", "--absolute-git-dir").rstrip(b"\n")))

    @property
    def name(self) -> str:
        """What people call it: the folder's name."""
        folder = self.folder.parent if self.folder.name == ".git" else self.folder
        return (folder.name.removesuffix(".git") or "repository")[:200]

    def tips(self, refs: Sequence[str], *, every: bool) -> list[str]:
        """The commits that refs name (`every`: all refs there are); none where nothing was committed yet."""
        if every:
            return self._said("rev-list", "--no-walk=unsorted", "--all").decode().split()
        found = {ref: self._commit(ref) for ref in refs or ("HEAD",)}
        for ref, commit in found.items():
            if refs and not commit:
                raise DeclarationError(f"{self.folder} has no commit {ref!r}; fix: a branch, a tag or a commit's id")
        return [commit for commit in found.values() if commit]

    def shallow(self) -> list[str]:
        """The commits at which a shallow clone was cut off; [] for a whole one."""
        named = os.fsdecode(self._said("rev-parse", "--git-path", "shallow").rstrip(b"\n"))
        file = Path(self._command[2]) / named
        return sorted(file.read_text().split()) if file.is_file() else []

    def count(self, tips: Iterable[str], without: Iterable[str]) -> int:
        """How many commits lie under `tips` and not under `without`."""
        told = self._done("rev-list", "--count", "--stdin", "--ignore-missing", given=_revisions(tips, without))
        return int(self._checked(told) or 0)

    def commits(self, tips: Iterable[str], without: Iterable[str]) -> Iterator[Commit]:
        """The commits under `tips` and not under `without`, parents first.  DeclarationError when git ends too soon."""
        cut = frozenset(self.shallow())
        tokens = self._tokens((*_LOG, *_DIFF, f"--format={'%x00'.join(_COMMIT)}"), _revisions(tips, without))
        token = next(tokens, None)
        while token is not None:
            fields = [token, *(next(tokens, b"") for _ in _COMMIT[1:])]
            files = added = removed = 0
            while (token := next(tokens, None)) is not None and (counted := _COUNTED.match(token)) is not None:
                files += 1
                added += 0 if counted[1] == b"-" else int(counted[1])
                removed += 0 if counted[2] == b"-" else int(counted[2])
            texts = [one.decode("utf-8", "backslashreplace") for one in fields]
            if not (texts[4] and texts[7]):
                texts[4], texts[7] = self._dates(texts[0])
            known = texts[0] not in cut
            yield Commit(
                id=texts[0],
                parents=tuple(texts[1].split()),
                author_name=texts[2],
                author_mail=texts[3],
                authored=written(texts[4]),
                committer_name=texts[5],
                committer_mail=texts[6],
                committed=written(texts[7]),
                files=files if known else None,
                added=added if known else None,
                removed=removed if known else None,
            )

    def authors(self, tips: Iterable[str]) -> Iterator[Author]:
        """The author of each commit under `tips`: most come again and again."""
        tokens = self._tokens((*_LOG, "--no-patch", f"--format={'%x00'.join(_AUTHOR)}"), _revisions(tips, ()))
        for name in tokens:
            mail, mapped = next(tokens, b""), next(tokens, b"")
            yield Author(*(one.decode("utf-8", "backslashreplace") for one in (name, mail, mapped)))

    def _check_version(self) -> None:
        told = self._said("version").decode(errors="replace")
        found = re.search(r"(\d+)\.(\d+)", told)
        if found is None or (int(found[1]), int(found[2])) < tuple(map(int, _OLDEST.split("."))):
            raise DeclarationError(f"git {_OLDEST} or later was expected, {told.strip()!r} came; fix: a newer git")

    def _commit(self, ref: str) -> str:
        """The id of the commit that a ref names; "" when there is none."""
        told = self._done("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        return told.stdout.decode().strip() if told.returncode == 0 else ""

    def _dates(self, commit: str) -> tuple[str, str]:
        """The dates of a commit as they stand in it: git tells none that lie before 1970."""
        head = self._said("cat-file", "commit", commit).partition(b"\n\n")[0]
        found = {who.decode(): date.decode(errors="backslashreplace") for who, date in _SIGNED.findall(head)}
        return found.get("author", ""), found.get("committer", "")

    def _tokens(self, arguments: Sequence[str], given: bytes) -> Iterator[bytes]:
        """What git writes, between NULs.  What it reads and says lies in files, so that no pipe can fill."""
        with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as errors:
            asked.write(given)
            asked.seek(0)
            with subprocess.Popen(
                [*self._command, *arguments], stdin=asked, stdout=subprocess.PIPE, stderr=errors, env=self._env
            ) as running:
                try:
                    assert running.stdout is not None
                    yield from _split(running.stdout)
                finally:
                    if running.poll() is None and running.stdout is not None:
                        running.stdout.close()  # whoever asked has stopped reading: git ends at its next write
            if running.returncode != 0:
                errors.seek(0)
                said = _words(errors.read(4096))
                raise DeclarationError(f"git ended in the middle of the history: {said}; fix: a whole clone")

    def _said(self, *arguments: str) -> bytes:
        return self._checked(self._done(*arguments))

    def _done(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._command, *arguments], input=given, capture_output=True, env=self._env, check=False
        )

    def _checked(self, done: subprocess.CompletedProcess[bytes]) -> bytes:
        if b"not a git repository" in done.stderr:
            fix = "fix: the folder of a clone, or of a bare repository"
            raise DeclarationError(f"{self._command[2]} is not a git repository; {fix}")
        if done.returncode != 0:
            raise DeclarationError(f"{self._command[2]}: git says: {_words(done.stderr)}")
        return done.stdout


def written(date: str) -> str:
    """A date as git holds it (`1112911993 +0200`) as RFC 3339 with its zone; as it is where that is no time."""
    found = _DATE.fullmatch(date)
    if found is None:
        return date[:200]
    offset = timedelta(hours=int(found[3]), minutes=int(found[4]))
    zone = UTC if offset >= timedelta(days=1) else timezone(-offset if found[2] == "-" else offset)
    try:
        return (_EPOCH + timedelta(seconds=int(found[1]))).astimezone(zone).isoformat()
    except OverflowError:
        return date


def _revisions(tips: Iterable[str], without: Iterable[str]) -> bytes:
    return "".join([*(f"{one}\n" for one in tips), *(f"^{one}\n" for one in without)]).encode()


def _split(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while read := stream.read(READ_BYTES):
        *whole, rest = (rest + read).split(b"\0")
        yield from whole
        if len(rest) > TOKEN_BYTES_MAX:
            raise DeclarationError(f"git tells of a name or a path of more than {TOKEN_BYTES_MAX} bytes")
    if rest:
        yield rest


def _words(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[:600] or "nothing"
