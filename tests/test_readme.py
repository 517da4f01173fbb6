"""The README: what it says to type works, prints what it says, and its numbers and generated parts are true.

```sh       run, all of them in order, in one shell and one fresh home
```text     what the block before it prints: each line in its order, `…` for what differs from run to run
```console  commands of make: their verbs and options are looked up; the tests of the demo run it
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer

from milepost.ops import cli, demo, docs
from milepost.ops.demo_data import SOURCES
from milepost.ops.settings import VARIABLES
from milepost.schemas.errors import DeclarationError
from tests.support import flights_expected as other
from tests.support import repositories
from tests.support.broker import broker_ports, shared_jars
from tests.support.flights_milestones import TERMS, courses, stands

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
MARK = "=== block"
RUN_S_MAX = 300

CURL = """
import sys, time, urllib.error, urllib.request
url, deadline = sys.argv[-1], time.monotonic() + 60
while True:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
            content = answer.read().decode()
        break
    except OSError as error:
        if "--retry" not in sys.argv or time.monotonic() > deadline:
            sys.exit(f"curl: {error}")
        time.sleep(1)
if "/dev/null" not in sys.argv:
    print(content)
"""
"""As much of curl as the README uses, for machines without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its language, its text, and for `sh` the lines that it must print."""

    language: str
    text: str
    prints: tuple[str, ...] = ()


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in order; a `text` behind an `sh` is what that prints."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    out = []
    for number, (language, text) in enumerate(found):
        following = found[number + 1] if number + 1 < len(found) else ("", "")
        prints = following[1].splitlines() if (language, following[0]) == ("sh", "text") else ()
        out.append(Block(language=language, text=text, prints=tuple(prints)))
    return out


def missing(lines: Sequence[str], printed: str) -> list[str]:
    """The lines that were not printed in this order; `…` stands for anything, also for nothing."""
    rest = iter(printed.splitlines())
    return [one for one in lines if not any(_pattern(one).fullmatch(line) for line in rest)]


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, line.rstrip().split("…"))))


@contextmanager
def shell(script: str, folder: Path) -> Iterator[tuple[int, Path, Path]]:
    """Run a script in a fresh home; yields its exit code, and what it wrote.  Nothing of the home runs afterwards."""
    here, tools, home = folder / "here", folder / "tools", folder / "home"
    here.mkdir()
    tools.mkdir()
    _tool(tools / "milepost", f'exec "{sys.executable}" -m milepost "$@"')
    if shutil.which("curl") is None:
        (tools / "curl.py").write_text(CURL)
        _tool(tools / "curl", f'exec "{sys.executable}" "{tools}/curl.py" "$@"')
    broker_port, port = broker_ports()
    env = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "MILEPOST_HOME": str(home),
        "MILEPOST_JARS": str(shared_jars()),
        "MILEPOST_BROKER_PORT": str(broker_port),
        "MILEPOST_PORT": str(port),
        "no_proxy": "127.0.0.1",
        "REPOSITORY": str(repositories.written(folder / "engine", 60).path),
    }
    stdout, stderr = folder / "stdout", folder / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        running = subprocess.Popen(
            ["sh", "-eu", "-c", script], cwd=here, env=env, stdout=out, stderr=err, start_new_session=True
        )
    try:
        yield running.wait(RUN_S_MAX), stdout, stderr
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGTERM)  # a script that failed leaves what it had put into the background
        until = time.monotonic() + 30
        while of_home(home) and time.monotonic() < until:
            time.sleep(0.1)
        for process in of_home(home):
            process.kill()


def of_home(home: Path) -> list[psutil.Process]:
    """Processes whose settings lead to this home."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("MILEPOST_HOME") == str(home):
                found.append(process)
    return found


def _tool(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


@pytest.mark.broker
@pytest.mark.slow
def test_what_the_readme_says_to_type_works(tmp_path: Path) -> None:
    """Every `sh` block runs in order, in one fresh home, prints what stands below it, and no process stays behind."""
    run = [block for block in blocks(README) if block.language == "sh"]
    assert len(run) >= 8 and sum(len(block.prints) for block in run) >= 20
    script = "".join(f"echo '{MARK} {i}'; echo '{MARK} {i}' >&2\n{block.text}\n" for i, block in enumerate(run))
    with shell(script, tmp_path) as (code, stdout, stderr):
        printed = re.split(rf"^{MARK} \d+\n", stdout.read_text(), flags=re.MULTILINE)[1:]
        said = f"in block {len(printed) - 1}\n{stdout.read_text()[-3000:]}\n{stderr.read_text()[-3000:]}"
        assert code == 0, said
        assert len(printed) == len(run)
        for i, (block, output) in enumerate(zip(run, printed, strict=True)):
            assert not missing(block.prints, output), f"block {i} printed\n{output}"
        assert not of_home(tmp_path / "home"), "what a block starts, a block ends"


def test_a_line_that_was_not_printed_is_seen() -> None:
    """The comparison above finds a line that is absent, one that differs, and lines in another order."""
    printed = '{"value":2674,"unit":"flights"}\n4 accepted\n3  tickets  latest\n'
    assert not missing(['{"value":2674,…', "4 accepted", "3  tickets  …"], printed)
    assert missing(["5 accepted"], printed) == ["5 accepted"]
    assert missing(['{"value":2675,…'], printed) == ['{"value":2675,…']
    assert missing(["3  tickets  latest", "4 accepted"], printed) == ["4 accepted"]
    assert missing(["4 accept"], printed) == ["4 accept"]


def test_a_block_that_fails_ends_the_run(tmp_path: Path) -> None:
    """A command with another exit code than 0 in the middle of a block ends the script with that code."""
    with shell("milepost describe >/dev/null\nmilepost tail nothing\necho never", tmp_path) as (code, stdout, stderr):
        assert code == cli.DECLARATION, stderr.read_text()
        assert "never" not in stdout.read_text() and "known: raw-events" in stderr.read_text()


def test_the_demos_numbers_are_those_of_the_data() -> None:
    """The table in the README is the one that the demo prints, with numbers computed over the CSV by another library."""
    (shown,) = [block.text for block in blocks(README) if "Departures from New York" in block.text]
    frame = other.read_csv()
    expected = other.expected(frame)
    with other.package_file("airlines.csv").open(newline="") as file:
        names = {row["carrier"]: row["name"] for row in csv.DictReader(file)}
    landed, weather = frame["air_time"].is_not_null().sum(), other.read_weather()
    events = frame.height + int(landed) + len(names) + other.read_planes().height + weather.height + len(SOURCES)
    at = datetime.fromisoformat(demo.AT)
    standing: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in TERMS}
    for carrier, course in courses(frame).items():
        for name, terms in TERMS.items():
            standing[name][carrier] = {"state": stands(course, terms, at, at).state}
    account = {"sent": 0, "accepted": 0, "duplicates": 0, "dead_letters": 0}
    summary = demo.Summary(
        totals=expected.totals,
        by_company=expected.by_company,
        events=account,
        seconds=1.0,
        events_per_s=1.0,
        page="",
        digest="",
        names=names,
        by_place=other.weather(weather),
        milestones=standing,
        complete_to=demo.AT,
    )
    lines = demo.table(summary).splitlines()
    assert [one for one in shown.splitlines() if one.strip() != "…" and one not in lines] == []
    assert f"{frame.height:,} flights" in README and f"{events:,} events" in README


def test_the_generated_parts_are_what_the_code_says() -> None:
    """Diagram and settings stand in the README as `make docs` writes them, and an unknown part is refused."""
    assert {"diagram", "settings"} <= set(re.findall(r"<!-- generated: ([a-z-]+) -->", README))
    assert docs.written(README) == README, "fix: make docs"
    stale = README.replace("flowchart LR", "flowchart TB")
    assert stale != README and docs.written(stale) == README
    with pytest.raises(DeclarationError, match="nothing generates 'weather'"):
        docs.written("<!-- generated: weather -->\n<!-- end -->")


def test_commands_and_verbs_exist() -> None:
    """Each `milepost COMMAND`, `make VERB` and option that the README names is there."""
    group = typer.main.get_command(cli.app)
    assert isinstance(group, typer.core.TyperGroup)
    spans = re.findall(r"`([^`\n]+)`", README)
    code = re.sub(r"#.*", "", "\n".join([*spans, *(one.text for one in blocks(README))]))  # comments are prose
    commands = set(re.findall(r"\bmilepost ([a-z][a-z-]*)\b", code))
    assert commands and commands <= group.commands.keys()
    for line in re.findall(r"\bmilepost ([a-z][a-z-]* .*--.*)", code):
        name, *words = line.split("|")[0].split()
        command = group.commands[name]
        if isinstance(command, typer.core.TyperGroup) and not words[0].startswith("--"):
            command = command.commands[words[0]]
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line
    verbs = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"\bmake ([a-z]+)\b", code)) <= verbs
    known = {name for one in group.commands["demo"].params for name in one.opts}
    for given in re.findall(r'make demo ARGS=(?:"([^"]+)"|(\S+))', code):
        assert set("".join(given).rstrip("`").split()) <= known, given


def test_what_the_readme_points_to_is_there() -> None:
    """Every link to a file leads to one, every named folder of the repository exists, every setting is a setting."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert {"ARCHITECTURE.md", "CONTRIBUTING.md", "LICENSE"} <= set(links)
    for link in links:
        assert (ROOT / link).is_file(), link
    for folder in re.findall(r"^\| `([a-z]+)/` \|", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
    assert set(re.findall(r"MILEPOST_[A-Z_]+[A-Z]", README)) <= VARIABLES.keys()


def test_the_first_screen_says_what_to_type() -> None:
    """The two commands stand in the first screen, below what Milepost is in three sentences."""
    first = README.splitlines()[:24]
    assert first[0] == "# Milepost"
    about = " ".join(README.split("\n\n")[1].split())
    assert len(re.findall(r"[.!?](?: |$)", about)) == 3
    typed = [line for line in first if line.startswith("$ ")]
    assert [line.split()[1:3] for line in typed] == [["make", "demo"], ["make", "test"]]
