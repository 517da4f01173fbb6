"""The first hour with a stopwatch: what a new user types, from the wheel to the commits of a repository on the page.

    install -> init --for git -> up -> apply -> connect git -> query          each step: how long, and what it said

`python -m tests.support.first_hour [REPOSITORY]` does it as a user would, everything fetched, in an empty home, and
prints the transcript; the test of Show 2 (tests/ops/test_five_minutes.py) does it without fetching.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from milepost.topology.protection import FREE_MAIL
from tests.support import wheels
from tests.support.broker import broker_ports, shared_jars

READY_S: Final = 180.0


@dataclass
class Stopwatch:
    """Steps with the seconds they took; `say` is told each."""

    say: Callable[[str], None] = print
    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.steps[name] = time.monotonic() - begun
        self.say(f"{self.steps[name]:7.1f} s  {name}")

    @property
    def total_s(self) -> float:
        return sum(self.steps.values())


@dataclass
class User:
    """Somebody with the wheel, an empty home and a repository of their own."""

    empty: wheels.Empty
    home: Path
    repository: Path
    watch: Stopwatch
    settings: Mapping[str, str]
    port: int

    @property
    def env(self) -> dict[str, str]:
        kept = {name: one for name, one in wheels.environment().items() if not name.startswith(("MILEPOST", "XDG"))}
        path = f"{self.empty.milepost.parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "HOME": str(self.home), "PATH": path, "no_proxy": "127.0.0.1", **self.settings}

    def milepost(self, *words: str, seconds: float = 300.0) -> str:
        """Type a command and wait for its end; answers stdout."""
        with self.watch.step("milepost " + " ".join(words)):
            done = subprocess.run(
                [self.empty.milepost, *words], cwd=self.empty.here, env=self.env, capture_output=True, text=True,
                timeout=seconds,
            )  # fmt: skip
        for line in (*done.stdout.splitlines()[:12], *(done.stderr.splitlines()[-6:] if done.returncode else ())):
            self.watch.say(f"            {line[:140]}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def up(self) -> Iterator[str]:
        """`milepost up` in a second terminal, until the page answers; yields its address."""
        page = f"http://127.0.0.1:{self.port}"
        with (self.home / "up.log").open("wb") as log:
            running = subprocess.Popen(
                [self.empty.milepost, "up"], cwd=self.empty.here, env=self.env, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            try:
                with self.watch.step("milepost up"):
                    self._until_ready(running, page)
                yield page
            finally:
                running.send_signal(signal.SIGINT)
                code = running.wait(60)
        assert code == 0, (self.home / "up.log").read_text()[-2000:]

    def _until_ready(self, running: subprocess.Popen[bytes], page: str) -> None:
        until = time.monotonic() + READY_S
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with direct.open(f"{page}/readyz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                assert running.poll() is None, (self.home / "up.log").read_text()
                assert time.monotonic() < until, "the page did not answer"
                time.sleep(0.1)

    def own_data(self) -> Counter[str]:
        """Definitions in force, history sent, and the commits of each organisation as `query` answers them."""
        self.milepost("apply", "history", "--org", "me")
        self.milepost("connect", "git", str(self.repository), "--wait")
        self.milepost("query", "commits", "--by", "company")
        found: Counter[str] = Counter()
        following: str | None = "0"
        while following is not None:
            answer = json.loads(self.milepost("query", "commits", "--by", "company", "--next", following, "--json"))
            found.update({row["label"]: row["value"] for row in answer["rows"]})
            following = answer["next"]
        return found


@contextmanager
def arrived(
    folder: Path, repository: Path, watch: Stopwatch, *, jars: bool, requirements: Path | None = None
) -> Iterator[User]:
    """Somebody who has just installed the wheel.  jars: those that tests share, so that none are fetched"""
    home = folder / "home"
    home.mkdir()
    wheel = wheels.built(folder)
    with watch.step(f"pip install {wheel.name}"):
        empty = wheels.installed(wheel, folder, requirements)
    broker_port, port = broker_ports()
    settings = {"MILEPOST_BROKER_PORT": str(broker_port), "MILEPOST_PORT": str(port)}
    if jars:
        settings["MILEPOST_JARS"] = str(shared_jars())
    yield User(empty=empty, home=home, repository=repository, watch=watch, settings=settings, port=port)


def by_domain(repository: Path) -> Counter[str]:
    """git's own counts: commits of each mail domain after .mailmap, free mail and addresses without one left out."""
    command = ["git", "-C", str(repository), "log", "--use-mailmap", "--format=%aE"]
    told = subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8", "backslashreplace")
    found: Counter[str] = Counter()
    for mail in told.lower().split("\n"):
        domain = mail.rpartition("@")[2].strip(". ") if "@" in mail else ""
        if domain and domain not in FREE_MAIL:
            found[domain] += 1
    return found


def main() -> None:
    """The transcript, everything fetched."""
    repository = Path(sys.argv[1] if len(sys.argv) > 1 else wheels.ROOT).resolve()
    watch = Stopwatch()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        arrived(
            Path(folder), repository, watch, jars=False, requirements=wheels.ROOT / "requirements" / "run.txt"
        ) as user,
    ):
        user.milepost("init", "history", "--for", "git")
        with user.up() as page:
            found, expected = user.own_data(), by_domain(repository)
            print(f"{watch.total_s:7.1f} s  in all; the page is {page}/?metric=commits&by=company")
            same = found == expected
            print(f"           {sum(found.values()):,} commits of {len(found):,} domains, git says the same: {same}")
    told: dict[str, Any] = {"steps": watch.steps, "seconds": watch.total_s, "same_as_git": same}
    print(json.dumps(told))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
