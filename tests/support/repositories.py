"""Repositories that tests write, and what git itself says of them: nothing here is Milepost's."""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ENV = {
    "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t.example", "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@t.example",
}  # fmt: skip
START = 1_356_998_400
"""2013-01-01T00:00:00Z."""
MAILMAP = b"""\
Ann Abel <ann@new.example> <ann@old.example>
<bob@corp.example> <BOB@laptop.local>
Carl <carl@corp.example> carl <team@shared.example>
Dora <dora@corp.example> Dora <team@shared.example>
Eve <eve@gmail.com> <eve@corp.example>
<fay@corp.example> <fay.one@x.example>
<fay@corp.example> <fay.two@y.example>
Nobody <known@corp.example> Nameless <>
"""
NAMED = (
    (b"Ann", b"ann@old.example"), (b"Ann Abel", b"Ann@New.example"), (b"Bob", b"bob@laptop.local"),
    (b"Bob", b"Bob@Corp.Example"), (b"Carl", b"team@shared.example"), (b"Dora", b"team@shared.example"),
    (b"Other", b"Team@Shared.example"), (b"Eve", b"eve@corp.example"), (b"Eve", b"EVE@gmail.com"),
    (b"Fay", b"fay.one@x.example"), (b"Fay", b"fay.two@y.example"), (b"FAY", b"fay@corp.example"),
    (b"Nameless", b""), (b"Silent", b""), (b"root", b"root"), (b"Ren\xe9 \xff", b"rene@latin.example"),
    ("Zoë ✓".encode(), b"zoe@utf.example"), (b"", b"anon@corp.example"), (b"a.b-c_d", b"a+tag@sub.corp.example"),
)  # fmt: skip


@dataclass(slots=True)
class Written:
    """A repository written by `git fast-import`.  branches: their last marks;  fed: whether an earlier stream is in it"""

    path: Path
    marks: int = 0
    fed: bool = False
    branches: dict[str, int] = field(default_factory=dict)

    def git(self, *arguments: str, given: bytes | None = None) -> bytes:
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, input=given, env=ENV, check=True, capture_output=True).stdout

    def log(self, *arguments: str) -> list[list[bytes]]:
        """`git log` with NUL between the fields of a line of the format."""
        told = self.git("log", *arguments)
        return [line.split(b"\0") for line in told.split(b"\n") if line]

    def counts(self, field: str, before: int) -> Counter[str]:
        """Commits with an author date before a moment (s), by `%ae` or `%aE` in small letters; by name without one."""
        found: Counter[str] = Counter()
        mapped = "--use-mailmap" if field == "%aE" else "--no-mailmap"  # %aE maps whatever is said, %ae never
        for name, mail, date in self.log(mapped, f"--format=%an%x00{field}%x00%at"):
            if int(date) < before:
                text = mail.decode("utf-8", "backslashreplace").lower()
                found[text or f"{name.decode('utf-8', 'backslashreplace')} <>"] += 1
        return found


def commit(
    at: Written, author: tuple[bytes, bytes], when: str, *, files: dict[str, bytes] | None = None, branch: str = "main",
    merge: str | None = None,
) -> bytes:  # fmt: skip
    """The part of a fast-import stream for one commit, on a branch, on top of what is there."""
    at.marks += 1
    name, mail = author
    lines = [f"commit refs/heads/{branch}".encode(), b"mark :%d" % at.marks]
    signed = (name + b" " if name else b"") + b"<" + mail + b"> " + when.encode()
    lines += [b"author " + signed, b"committer C <c@c.example> " + when.encode(), b"data 2\nm\n"]
    if branch in at.branches:
        lines.append(b"from :%d" % at.branches[branch])
    elif at.fed:
        lines.append(b"from refs/heads/main^0")
    elif "main" in at.branches:
        lines.append(b"from :%d" % at.branches["main"])
    if merge is not None:
        lines.append(b"merge :%d" % at.branches[merge])
    for path, text in (files or {}).items():
        lines += [b"M 100644 inline " + path.encode(), b"data %d" % len(text), text]
    at.branches[branch] = at.marks
    return b"\n".join(lines) + b"\n"


def written(folder: Path, commits: int, seed: int = 7, *, bare: bool = False) -> Written:
    """A history of `commits` by sixty authors: merges, empty commits, binary files, case variants, a mail map."""
    chance = random.Random(seed)
    at = empty(folder, bare=bare)
    others = [(b"P%d" % i, b"p%d@c%d.example" % (i, i % 9)) for i in range(60 - len(NAMED))]
    authors = [*NAMED, *others]
    when, stream = START, []
    for i in range(commits):
        when += chance.randrange(0, 40_000)
        zone = chance.choice(["+0000", "+0100", "-0500", "+0545", "-0330"])
        files: dict[str, bytes] = {".mailmap": MAILMAP} if i == 0 else {}
        branch, merge = "main", None
        last = i == commits - 1
        if i > 20 and not last and chance.random() < 0.1:
            branch = "side"
        elif "side" in at.branches and (last or chance.random() < 0.05):
            merge = "side"
        if chance.random() < 0.8:
            name = chance.choice(["a.txt", "b/c.txt", "d\te.txt", "ü"])
            files[f'"{name}"'.replace("\t", "\\t") if "\t" in name else name] = (
                b"\x00\x01" if chance.random() < 0.1 else b"%d\n" % i * chance.randrange(1, 5)
            )
        stream.append(commit(at, chance.choice(authors), f"{when} {zone}", files=files, branch=branch, merge=merge))
        if merge is not None:
            del at.branches["side"]
            stream.append(b"reset refs/heads/side\nfrom :%d\n" % at.branches["main"])
    feed(at, stream)
    return at


def empty(folder: Path, *, bare: bool = False) -> Written:
    folder.mkdir(parents=True, exist_ok=True)
    at = Written(folder)
    at.git("init", "--quiet", "--initial-branch=main", *(["--bare"] if bare else []))
    return at


def feed(at: Written, stream: list[bytes]) -> None:
    """Write a stream into the repository, and what it says of main into the folder."""
    at.git("fast-import", "--quiet", "--force", "--date-format=raw-permissive", given=b"".join(stream))
    at.fed, at.branches = True, {}
    if (at.path / ".git").is_dir():
        at.git("reset", "--quiet", "--hard", "main")
