"""`connect git`: what a repository holds, counted by person and by mail domain, is what git says of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from milepost.ops.connect import history
from milepost.ops.connect.git import Repository, written
from milepost.ops.connect.history import GitReport, Wish, send_history
from milepost.ops.settings import Settings
from milepost.ops.starter import files_of
from milepost.schemas.errors import DeclarationError
from milepost.topology.driver import Driver
from milepost.topology.protection import FREE_MAIL
from tests.support import repositories
from tests.support.posting import NOW, DriverClient
from tests.support.repositories import START, Written, commit, empty, feed
from tests.support.small import SECRET

COMMITS = 2_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's clock is the test's: nothing has to be waited for."""
    monkeypatch.setattr(history, "BETWEEN_S", 0.0)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return repositories.written(tmp_path_factory.mktemp("repository") / "engine", COMMITS)


def client(partitions: int = 3) -> DriverClient:
    driver = Driver(SECRET, partitions=partitions)
    bundle = {name: text for name, text in files_of("git").items() if not name.startswith("tests/")}
    driver.apply("acme", bundle, NOW)
    return DriverClient(driver)


def sent(to: DriverClient, at: Path, home: Path, **more: Any) -> GitReport:
    return send_history(to, Settings(home=home), Wish(path=at, org="acme", **more))  # type: ignore[arg-type]


def domains(people: Counter[str]) -> Counter[str]:
    """People -> mail domains, but for free mail, which is nobody's."""
    found: Counter[str] = Counter()
    for mail, count in people.items():
        domain = mail.rpartition("@")[2] if "@" in mail else ""
        if domain and domain not in FREE_MAIL:
            found[domain] += count
    return found


def iso(seconds: int) -> int:
    return (seconds - seconds % 900) * 1000


@pytest.mark.parametrize(("mailmap", "field"), [(True, "%aE"), (False, "%ae")])
def test_counts_are_those_of_git(repository: Written, tmp_path: Path, mailmap: bool, field: str) -> None:
    """At ten moments commits by person and by mail domain are what `git log` counts, with the mail map or without."""
    to = client()
    report = sent(to, repository.path, tmp_path, mailmap=mailmap)
    assert report.commits.outcomes == {"accepted": COMMITS} and not report.odd_count
    dates = sorted(int(date) for (date,) in repository.log("--format=%at"))
    assert len(dates) == COMMITS and to.reasons == []
    for i in range(1, 11):
        at_ms = iso(dates[-1] * i // 10 + dates[0] * (10 - i) // 10 + (900 if i == 10 else 0))
        expected = repository.counts(field, at_ms // 1000)
        assert sum(expected.values()) == to.ask("commits", at_ms=at_ms)
        assert to.ask("commits", "person", at_ms=at_ms) == expected
        assert to.ask("commits", "company", at_ms=at_ms) == domains(expected)
        assert to.ask("authors", at_ms=at_ms) == len(expected)


def test_the_repository_has_what_makes_counting_hard(repository: Written) -> None:
    """Sixty authors, addresses that differ in case alone, one that several people share, and a map that moves some."""
    authors = {(name, mail) for name, mail in repository.log("--no-mailmap", "--format=%an%x00%ae")}
    mails = {mail for _, mail in authors}
    assert len(authors) == 60
    assert len({mail.lower() for mail in mails}) < len(mails)
    assert len({name for name, mail in authors if mail.lower() == b"team@shared.example"}) >= 3
    moved = repository.log("--use-mailmap", "--format=%ae%x00%aE")
    assert sum(before.lower() != after.lower() for before, after in moved) > COMMITS // 20
    assert repository.counts("%aE", 2**40) != repository.counts("%ae", 2**40)


def test_lines_files_and_merges_are_those_of_git(repository: Written, tmp_path: Path) -> None:
    """A merge counts once and writes nothing, an empty commit counts; lines and files are those of `--numstat`."""
    to = client()
    sent(to, repository.path, tmp_path, name="engine")
    lines = repository.git("log", "--numstat", "--no-renames", "--format=").decode().splitlines()
    counted = [line.split("\t") for line in lines if line]
    assert to.ask("lines_added") == sum(int(one[0]) for one in counted if one[0] != "-")
    assert to.ask("lines_removed") == sum(int(one[1]) for one in counted if one[1] != "-")
    assert to.ask("files_changed") == len(counted) and any(one[0] == "-" for one in counted)
    merges = len(repository.log("--merges", "--format=%H"))
    assert merges > 5
    assert to.ask("commits", "kind") == {"merge": merges, "change": COMMITS - merges}
    assert to.ask("commits", "repository") == {"engine": COMMITS}


def test_the_people_of_a_company_are_listed(repository: Written, tmp_path: Path) -> None:
    """by=person with a company is what each of its people did."""
    to = client()
    sent(to, repository.path, tmp_path)
    expected = {mail: n for mail, n in repository.counts("%aE", 2**40).items() if mail.endswith("@corp.example")}
    assert to.ask("commits", "person", company="mail_domain:corp.example") == expected


def test_a_second_run_sends_what_is_new(repository: Written, tmp_path: Path) -> None:
    """Nothing is read again; a commit that is new is sent; without the note all is sent again and changes nothing."""
    at = empty(tmp_path / "r")
    feed(at, [commit(at, (b"A", b"a@x.example"), f"{START + i} +0000", files={"f": b"%d\n" % i}) for i in range(5)])
    to, home = client(), tmp_path / "home"
    assert sent(to, at.path, home).commits.outcomes == {"accepted": 5}
    again = sent(to, at.path, home)
    assert (again.before, dict(again.commits.outcomes), dict(again.authors.outcomes)) == (5, {}, {})
    feed(at, [commit(at, (b"B", b"b@x.example"), f"{START + 9} +0000")])
    third = sent(to, at.path, home)
    assert (third.before, third.commits.outcomes) == (5, {"accepted": 1})
    assert third.authors.outcomes == {"accepted": 2}, "a listing and a membership"
    assert to.ask("commits", "company") == {"x.example": 6}
    anew = sent(to, at.path, tmp_path / "other")
    assert (anew.before, anew.commits.outcomes, anew.authors.outcomes) == (0, {"duplicate": 6}, {"duplicate": 4})
    assert to.ask("commits") == 6 and to.reasons == []
    fresh = client()
    anew = sent(fresh, at.path, home)
    assert anew.commits.outcomes == {"accepted": 5, "duplicate": 1}, (
        "a log made anew gets everything, one as a question"
    )
    assert fresh.ask("commits") == 6


def test_a_run_that_was_cut_short_goes_on(repository: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered before the end is not sent again, and nothing is missing."""
    monkeypatch.setattr(history, "SAVE_S", 0.0)
    monkeypatch.setattr("milepost.ops.send.ITEMS_MAX", 300)
    to = client()
    to.fails_after = 4
    with pytest.raises(KeyboardInterrupt):
        sent(to, repository.path, tmp_path)
    done, to.fails_after = sum(to.posts[1:]), None
    rest = sent(to, repository.path, tmp_path)
    assert rest.before == done == 900 and rest.commits.outcomes == {"accepted": COMMITS - done}
    assert to.ask("commits", "person") == repository.counts("%aE", 2**40)


def test_a_changed_mail_map_moves_people(tmp_path: Path) -> None:
    """Who goes by another address counts there from then on, all of their past included, and can go back."""
    at = empty(tmp_path / "r")
    who = [(b"Ann", b"ann@one.example"), (b"Ann", b"ann@two.example"), (b"Bob", b"bob@two.example")]
    feed(at, [commit(at, one, f"{START + i} +0000") for i, one in enumerate(who)])
    to, home, maps = client(), tmp_path / "home", (b"", b"<ann@two.example> <ann@one.example>\n", b"", maps_back())
    for i, text in enumerate(maps):
        (at.path / ".mailmap").write_bytes(text)
        report = sent(to, at.path, home)
        assert report.moved == (0, 1, 1, 1)[i]
        assert to.ask("commits", "person") == at.counts("%aE", 2**40), text
        assert to.ask("commits", "company") == domains(at.counts("%aE", 2**40))
        to.driver.tick(to.now_ms)
    assert to.reasons == []


def maps_back() -> bytes:
    return b"<ann@two.example> <ann@one.example>\n"


def test_odd_dates_are_dead_letters_and_said(tmp_path: Path) -> None:
    """Before 1970, far ahead, beyond any calendar: each is sent, becomes a dead letter, and is named; others count."""
    at = empty(tmp_path / "r")
    feed(at, [commit(at, (b"A", b"a@x.example"), f"{START} +0000", files={"f": b"1\n"})])
    tree, parent = (at.git("rev-parse", one).decode().strip() for one in ("HEAD^{tree}", "HEAD"))
    for date in ("-1000 +0100", "4102444800 +0000", "99999999999999 +0000", "soon", f"{START} +9999"):
        text = f"tree {tree}\nparent {parent}\nauthor A <a@x.example> {date}\ncommitter A <a@x.example> 5 +0000\n\nm\n"
        parent = (
            at.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", given=text.encode()).decode().strip()
        )
    at.git("update-ref", "refs/heads/main", parent)
    to = client()
    report = sent(to, at.path, tmp_path / "home")
    assert report.commits.outcomes == {"accepted": 6} and report.odd_count == 4
    said = [one["said"] for one in report.odd]
    dates = ["1970-01-01T00:43:20+01:00", "2100-01-01T00:00:00+00:00", "99999999999999 +0000", "soon"]
    assert [one.partition(": ")[0] for one in said] == dates
    assert "before 1970" in said[0] and "future_event" in said[1] and "they are dead letters" in report.text()
    assert to.ask("commits") == 2 and to.reasons == ["contract_violation"] * 3 + ["future_event"]


def test_submodules_shallow_and_bare(tmp_path: Path) -> None:
    """A submodule is a file of its parent; a bare clone reads the same; of a shallow one it is said, and mended later."""
    at = empty(tmp_path / "r")
    feed(at, [commit(at, (b"A", b"a@x.example"), f"{START + i} +0000", files={"f": b"%d\n" % i * 3}) for i in range(4)])
    at.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    at.git("commit", "--quiet", "--message", "a submodule")
    at.git("clone", "--quiet", "--bare", str(at.path), str(tmp_path / "bare.git"))
    at.git("clone", "--quiet", "--depth", "2", f"file://{at.path}", str(tmp_path / "shallow"))
    whole = list(Repository(at.path).commits(["main"], ()))
    assert whole[-1].files == 1 and len(whole) == 5
    bare = Repository(tmp_path / "bare.git")
    assert list(bare.commits(["main"], ())) == whole and bare.name == "bare"
    to = client()
    report = sent(to, tmp_path / "shallow", tmp_path / "home")
    assert report.edge == 1 and "git fetch --unshallow" in report.text()
    assert report.commits.outcomes == {"accepted": 2} and to.ask("lines_added") == 1
    Written(tmp_path / "shallow").git("fetch", "--quiet", "--unshallow")
    rest = sent(to, tmp_path / "shallow", tmp_path / "home")
    assert rest.commits.outcomes["accepted"] == 3 and to.ask("commits") == 5 and to.reasons == []


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, no repository, no such ref, no commit, a broken object, definitions without the source, no git."""
    to = client()
    with pytest.raises(DeclarationError, match="is not a folder"):
        sent(to, tmp_path / "absent", tmp_path)
    with pytest.raises(DeclarationError, match="not a git repository"):
        sent(to, Path("/"), tmp_path)
    at = empty(tmp_path / "r")
    assert sent(to, at.path, tmp_path).text() == "commits of r: no events"
    feed(at, [commit(at, (b"A", b"a@x.example"), f"{START + i} +0000", files={"f": b"%d\n" % i}) for i in range(3)])
    with pytest.raises(DeclarationError, match="has no commit 'nothing'; fix: a branch"):
        sent(to, at.path, tmp_path, refs=("nothing",))
    to.sources = ()
    with pytest.raises(DeclarationError, match="know no source git: nothing was sent; fix: `milepost init"):
        sent(to, at.path, tmp_path)
    to.sources = ("git",)
    first = at.git("rev-parse", "main~2").decode().strip()
    broken = at.path / ".git" / "objects" / first[:2] / first[2:]
    for pack in (at.path / ".git" / "objects" / "pack").glob("*.pack"):
        data = pack.rename(tmp_path / pack.name).read_bytes()
        at.git("unpack-objects", "-q", given=data)
    broken.unlink()
    with pytest.raises(DeclarationError, match=r"git (says|ended in the middle)"):
        sent(to, at.path, tmp_path)
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho git version 2.30.9\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeclarationError, match=r"git 2\.31 or later was expected, 'git version 2\.30\.9' came"):
        sent(to, at.path, tmp_path)
    old.unlink()
    with pytest.raises(DeclarationError, match="git is not installed"):
        sent(to, at.path, tmp_path)


def test_what_a_person_has_set_for_git_changes_nothing(repository: Written, tmp_path: Path) -> None:
    """Colours, renames, signatures, orders, an external diff: the commits read the same, and nothing is run."""
    whole = list(Repository(repository.path).commits(["main"], ()))
    ran = tmp_path / "ran"
    settings = {
        "diff.external": f"touch {ran}", "core.fsmonitor": f"touch {ran}", "log.showSignature": "true",
        "color.ui": "always", "log.date": "iso", "diff.renames": "copies", "log.diffMerges": "first-parent",
        "diff.noprefix": "true", "log.showRoot": "false", "log.follow": "true", "diff.algorithm": "patience",
        "diff.context": "0", "format.pretty": "oneline", "log.decorate": "full", "diff.ignoreSubmodules": "all",
        "diff.submodule": "log", "diff.statNameWidth": "5", "core.quotePath": "true", "i18n.logOutputEncoding": "UTF-16",
    }  # fmt: skip
    file = repository.path / ".git" / "config"
    before = file.read_text()
    try:
        for name, value in settings.items():
            repository.git("config", name, value)
        assert list(Repository(repository.path).commits(["main"], ())) == whole and not ran.exists()
    finally:
        file.write_text(before)


def test_dates_keep_their_zone() -> None:
    """git's dates become RFC 3339; a zone that is none is UTC."""
    assert written("1112911993 -0730") == "2005-04-07T14:43:13-07:30"
    assert written("0 +0000") == "1970-01-01T00:00:00+00:00"
    assert written("1112911993 +9999") == "2005-04-07T22:13:13+00:00"
    assert written("1112911993") == "1112911993"


def test_long_authors_have_a_short_key() -> None:
    """A key has 256 bytes at most; two that begin alike stay two."""
    keys = {history.author_key("é" * 300 + tail, "A@x.example") for tail in ("1", "2")}
    assert len(keys) == 2 and all(len(key.encode()) <= 256 for key in keys)
    assert history.author_key("", "A@X.example") == "<a@x.example>"
    assert history.mail_key("N/A") is None and history.mail_key(" A@x ") == "a@x"
    assert [history.domain_of(one) for one in ("a", "a@", "a@b@C.example.", "@")] == [None, None, "C.example", None]
