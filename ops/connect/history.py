"""History: what a repository says, as events of the bundle that `milepost init --for git` writes.

    authors ──▶ author.listed (two keys: a proposed link), milepost.membership (address -> its domain)
            ──▶ where .mailmap says otherwise than last time: milepost.unlink, then milepost.link
    commits ──▶ commit.authored, id = the commit's

The authors go first, so that each commit counts for somebody as soon as it is there.  Ids follow from what they stand
for, so sending everything again changes nothing.  What was sent is noted in the home (`connect/`), and believed only if
the worker knows the last event of it: a deployment made anew gets everything again.  Commits come parents first, so the
note of a run that was cut short is whole, too: tips under which everything is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from milepost.ops.broker import Say, silent
from milepost.ops.client import Client
from milepost.ops.connect.git import Commit, Repository
from milepost.ops.connect.targets import needs_source, organisation_of
from milepost.ops.send import Item, SendReport, known, send_events
from milepost.ops.settings import Settings
from milepost.ops.starter import files_of
from milepost.schemas.errors import ContractError, DeclarationError, StoreError
from milepost.schemas.times import time_ms
from milepost.topology.by_hand import NAME
from milepost.topology.identity import KEY_BYTES_MAX
from milepost.topology.protection import COMPANY, means_nothing

SOURCE: Final = "git"
BY: Final = "milepost connect git"
ALWAYS: Final = "1970-01-01T00:00:00Z"
"""The time of what holds for all of a history."""
AUTHORS_MAX: Final = 1_000_000
ODD_SHOWN_MAX: Final = 10
SAVE_S: Final = 2.0
SKEW_MS: Final = 600_000
"""How far ahead a time may lie, as the bundle has it."""
BETWEEN_S: Final = 1.0
"""Between taking apart and joining: the log orders decisions by its own clock."""
_FORMAT: Final = 1
_SHORT: Final = 160


@dataclass(slots=True)
class GitReport:
    """What became of a history.

    before: commits that an earlier run has sent, which were not read again
    odd:    commits whose author date is none that an event may have: they are dead letters; odd_count: how many
    edge:   commits at which a shallow clone is cut off
    moved:  authors who go by another address than in the run before
    alone:  addresses that belong to no organisation: those of free mail, and those without a domain
    """

    org: str
    repository: str
    before: int = 0
    commits: SendReport = field(default_factory=SendReport)
    authors: SendReport = field(default_factory=SendReport)
    odd: list[dict[str, str]] = field(default_factory=list)
    odd_count: int = 0
    edge: int = 0
    moved: int = 0
    alone: int = 0

    @property
    def rejected(self) -> int:
        return self.commits.rejected + self.authors.rejected

    def as_data(self) -> dict[str, Any]:
        return {
            "org": self.org,
            "repository": self.repository,
            "sent_before": self.before,
            "commits": self.commits.as_data(),
            "authors": self.authors.as_data(),
            "dead_letters": self.odd_count,
            "odd": self.odd,
            "shallow_edge": self.edge,
            "authors_moved": self.moved,
            "addresses_alone": self.alone,
        }

    def text(self) -> str:
        told = [f"commits of {self.repository}: {self.commits.text()}"]
        if self.before:
            told.append(f"{self.before:,} commits were sent before and not read again")
        if self.authors.outcomes:
            told.append(f"authors, links and memberships: {self.authors.text()}")
        if self.moved:
            told.append(f"{self.moved:,} authors go by another address than before: taken apart, and joined anew")
        if self.alone:
            told.append(f"addresses that belong to no organisation (free mail, or no domain): {self.alone:,}")
        if self.odd_count:
            told.append(f"{self.odd_count:,} commits have a date that no event may have; they are dead letters:")
            told += [f"  commit {one['commit'][:12]}: {one['said']}" for one in self.odd]
        if self.edge:
            fix = "fix: `git fetch --unshallow`, and run this again"
            told.append(f"a shallow clone, cut off at {self.edge:,} commits, whose lines are not known; {fix}")
        return "\n".join(told)


@dataclass(slots=True)
class Note:
    """What was sent of a repository to an organisation.

    tips:    everything under them was sent;  shallow: where the clone was cut off then
    probe:   the last event that was sent: does the worker know it?
    authors: author -> (address, how often it has changed)
    """

    file: Path
    tips: set[str] = field(default_factory=set)
    shallow: list[str] = field(default_factory=list)
    probe: dict[str, Any] | None = None
    authors: dict[str, tuple[str | None, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Note:
        """The note in a file; an empty one where there is none, or none that can be read: then all is sent again."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            held = json.loads(file.read_bytes())
            if held["format"] == _FORMAT:
                authors = {str(who): (mail, int(times)) for who, (mail, times) in held["authors"].items()}
                return cls(file, set(held["tips"]), list(held["shallow"]), held["probe"], authors)
        return cls(file)

    def save(self) -> None:
        held = {
            "format": _FORMAT, "tips": sorted(self.tips), "shallow": self.shallow, "probe": self.probe,
            "authors": self.authors,
        }  # fmt: skip
        fresh = self.file.with_suffix(f".{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as out:
                json.dump(held, out)
            fresh.replace(self.file)
        except OSError as error:
            raise StoreError(f"what was sent cannot be noted in {self.file}: {error}; fix: room, or rights") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for.  refs: what to read (HEAD);  every: all refs;  mailmap: whether .mailmap counts"""

    path: Path
    org: str | None = None
    name: str = ""
    refs: tuple[str, ...] = ()
    every: bool = False
    mailmap: bool = True


def send_history(client: Client, settings: Settings, wish: Wish, *, say: Say = silent) -> GitReport:
    """Send what a repository holds and was not sent yet.  Raises DeclarationError, StoreError, Refused."""
    repository = Repository(wish.path)
    org = organisation_of(client, wish.org)
    needs_source(client, org, SOURCE, files_of("git"), "git")
    name = wish.name or repository.name
    tips, cut = repository.tips(wish.refs, every=wish.every), repository.shallow()
    report = GitReport(org=org, repository=name, edge=len(cut))
    if not tips:
        say(f"{repository.folder} holds no commit yet")
        return report
    place = _hash(org, str(repository.folder))
    note = Note.read(settings.home / "connect" / (settings.namespace or "default") / f"git-{place}.json")
    if note.probe is None or not known(client, note.probe):
        note = Note(note.file)
    if note.shallow != cut:
        note.tips, note.shallow = set(), cut
    without = sorted(note.tips)
    total = repository.count(tips, without)
    report.before = repository.count(tips, ()) - total
    say(f"reading {repository.folder}: {total:,} commits to send")
    _send_authors(client, repository, tips, wish.mailmap, note, report, say)
    _send_commits(client, repository, tips, without, total, note, report, say)
    note.save()
    return report


def commit_event(org: str, repository: str, commit: Commit) -> dict[str, Any]:
    """The event of a commit."""
    data = {
        "repository": repository,
        "author": author_key(commit.author_name, commit.author_mail),
        "author_name": commit.author_name,
        "author_mail": commit.author_mail,
        "committer_name": commit.committer_name,
        "committer_mail": commit.committer_mail,
        "committed": commit.committed,
        "kind": "merge" if len(commit.parents) > 1 else "change",
        "files": commit.files,
        "lines_added": commit.added,
        "lines_removed": commit.removed,
    }
    return {
        "org": org,
        "source": SOURCE,
        "id": commit.id,
        "type": "commit.authored",
        "time": commit.authored,
        "data": data,
    }


def listed_event(org: str, author: str, mail: str | None) -> dict[str, Any]:
    """The event of an author and the address that they go by."""
    data = {"author": author, "mail": mail, "mail_domain": None if mail is None else domain_of(mail)}
    id = f"author:{_hash(author, mail or '')}"
    return {"org": org, "source": SOURCE, "id": id, "type": "author.listed", "time": ALWAYS, "data": data}


def membership_event(org: str, mail: str) -> dict[str, Any] | None:
    """That an address belongs to its domain; None where that is nobody's own."""
    domain = domain_of(mail)
    if domain is None or means_nothing(COMPANY, domain):
        return None
    data = {"entity": "person", "member": f"mail:{mail}", "company": f"mail_domain:{domain}", "by": BY}
    return _decided(org, "membership", f"git:{_hash(mail)}", data)


def moved_events(org: str, author: str, mail: str | None, times: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """That an author leaves the address they had, and joins another (None: none).  times: how often it has changed"""
    id = f"git:{_hash(author)}:{times}"
    key = f"author:{author}"
    apart = _decided(org, "unlink", f"{id}:apart", {"entity": "person", "keys": [key], "by": BY})
    if mail is None:
        return apart, None
    return apart, _decided(org, "link", f"{id}:joined", {"entity": "person", "keys": [f"mail:{mail}", key], "by": BY})


def author_key(name: str, mail: str) -> str:
    """An author as a key: the name as it is written, the address in small letters; shortened where it is too long."""
    key = f"{name} <{mail.lower()}>".strip()
    if len(key.encode()) <= KEY_BYTES_MAX:
        return key
    return f"{key.encode()[:_SHORT].decode(errors='ignore')}… {_hash(key)}"


def mail_key(mail: str) -> str | None:
    """An address as a key; None where it names nobody."""
    key = mail.strip().lower()
    return None if means_nothing("person", key) or len(key.encode()) > KEY_BYTES_MAX else key


def domain_of(mail: str) -> str | None:
    """The domain of an address; None where it has none."""
    domain = mail.rpartition("@")[2].strip(". ") if "@" in mail else ""
    return domain or None


def _send_authors(
    client: Client, repository: Repository, tips: Sequence[str], mailmap: bool, note: Note, report: GitReport, say: Say
) -> None:
    found: dict[str, str | None] = {}
    for one in repository.authors(tips):
        found.setdefault(author_key(one.name, one.mail), mail_key(one.mapped if mailmap else one.mail))
        if len(found) > AUTHORS_MAX:
            raise DeclarationError(f"the history names more than {AUTHORS_MAX:,} authors; fix: fewer refs")
    addresses = {mail for mail in found.values() if mail is not None}
    noted = {mail for mail, _ in note.authors.values()}
    members = {mail: membership_event(report.org, mail) for mail in sorted(addresses)}
    report.alone = sum(one is None for one in members.values())
    first = [listed_event(report.org, who, mail) for who, mail in found.items() if who not in note.authors]
    first += [one for mail, one in members.items() if one is not None and mail not in noted]
    then = []
    for who, mail in found.items():
        before, times = note.authors.get(who, (mail, 0))
        if before != mail:
            report.moved += 1
            times += 1
            apart, joined = moved_events(report.org, who, mail, times)
            first.append(apart)
            then += [] if joined is None else [joined]
        note.authors[who] = (mail, times)
    send_events(client, _items(first), report.authors, say=say, what="authors, links and memberships")
    if then:
        time.sleep(BETWEEN_S)
        send_events(client, _items(then), report.authors, say=say, what="authors, links and memberships")


def _send_commits(
    client: Client, repository: Repository, tips: Sequence[str], without: Sequence[str], total: int, note: Note,
    report: GitReport, say: Say,
) -> None:  # fmt: skip
    under_way: deque[Commit] = deque()
    saved = time.monotonic()
    now_ms = time.time_ns() // 1_000_000

    def items() -> Iterator[Item]:
        for commit in repository.commits(tips, without):
            fault = _fault(commit.authored, now_ms)
            if fault is not None:
                report.odd_count += 1
                if len(report.odd) < ODD_SHOWN_MAX:
                    report.odd.append({"commit": commit.id, "said": f"{commit.authored}: {fault}"})
            under_way.append(commit)
            event = commit_event(report.org, report.repository, commit)
            yield f"commit {commit.id[:12]}", event, _size(event)

    def taken(some: Sequence[Item]) -> None:
        nonlocal saved
        for _ in some:
            commit = under_way.popleft()
            note.tips.difference_update(commit.parents)
            note.tips.add(commit.id)
        note.probe = some[-1][1]
        if time.monotonic() - saved > SAVE_S:
            saved = time.monotonic()
            note.save()

    send_events(client, items(), report.commits, say=say, what=f"of {total:,} commits", taken=taken)


def _fault(date: str, now_ms: int) -> str | None:
    """Why no event may have this time."""
    try:
        if time_ms(date) <= now_ms + SKEW_MS:
            return None
    except ContractError as error:
        return error.detail
    return "it lies ahead (future_event)"


def _items(events: Iterable[Mapping[str, Any]]) -> Iterator[Item]:
    return ((f"{one['type']} {one['id']}", one, _size(one)) for one in events)


def _size(event: Mapping[str, Any]) -> int:
    return 400 + sum(len(one) for one in event["data"].values() if isinstance(one, str))


def _decided(org: str, what: str, id: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"org": org, "source": NAME, "id": id, "type": f"{NAME}.{what}", "time": ALWAYS, "data": data}


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
