"""The commands: `milepost …`.

Each command reads the settings once, calls one function of a room, and prints: text for people, or with `--json` one
JSON document on stdout (`tail`: one a line).  Progress goes to stderr.

Exit codes: 0 done · 1 it failed, or the answer is no · 2 wrong use, or what was declared does not hold · 3 nothing
answers (worker, broker) · 4 the worker refused the question · 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import orjson
import typer

from milepost.ops import processes
from milepost.ops.acts import app as acts
from milepost.ops.bench import PARTS
from milepost.ops.connect.commands import app as connect
from milepost.ops.dead_letters import app as dead_letters
from milepost.ops.describing import app as describing
from milepost.ops.doors import app as doors
from milepost.ops.first_hour import app as first_hour
from milepost.ops.identity import app as identity
from milepost.ops.keeping import app as keeping
from milepost.ops.options import Json
from milepost.ops.quality import app as quality
from milepost.ops.records import app as records
from milepost.ops.settings import EMBEDDED, Settings, read_settings
from milepost.ops.whys import app as whys
from milepost.schemas.errors import DeclarationError, MilepostError, StoreError

FAILED: Final = 1
DECLARATION: Final = 2
NOTHING_ANSWERS: Final = 3
REFUSED: Final = 4
INTERRUPTED: Final = 130

app = typer.Typer(
    name="milepost",
    help="An event engine: raw events to signals and metrics, at any point in time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Bundle = Annotated[str | None, typer.Argument(metavar="FOLDER", help="A bundle; with --rollback, how many back [1].")]
Org = Annotated[str, typer.Option(help="The organisation the definitions are for.")]
Rollback = Annotated[bool, typer.Option("--rollback", help="The bundle before the present one, from the log.")]
To = Annotated[str, typer.Option(help="The bundle of this id (or how it begins), from the log.")]
Port = Annotated[int | None, typer.Option(help="Port of the page and the web views (MILEPOST_PORT, 6066).")]
BrokerPort = Annotated[int | None, typer.Option(help="Port of the embedded broker (MILEPOST_BROKER_PORT, 9092).")]
Partitions = Annotated[int | None, typer.Option(help="Partitions of the topics, fixed at their creation.")]


for _part in (first_hour, identity, records, whys, acts, connect, keeping, quality, dead_letters, doors, describing):
    app.add_typer(_part)


def main() -> None:
    """The console script."""
    app()


@app.command()
def up(
    broker_only: Annotated[bool, typer.Option(help="The broker and the topics, without a worker.")] = False,
    port: Port = None,
    broker_port: BrokerPort = None,
    partitions: Partitions = None,
    registry: Annotated[bool, typer.Option("--registry", help="A schema registry, too (MILEPOST_REGISTRY).")] = False,
    json: Json = False,
) -> None:
    """Start everything on this machine: broker, topics, a supervised worker, the page.  Ctrl-C stops it."""
    from milepost.ops.supervise import Stopped, Supervisor, stopping_on_signals

    with _said(json):
        given = {"MILEPOST_PORT": port, "MILEPOST_BROKER_PORT": broker_port, "MILEPOST_PARTITIONS": partitions}
        settings = _settings(**given, MILEPOST_REGISTRY=EMBEDDED if registry else None)
        try:
            with (
                stopping_on_signals(),
                Supervisor(settings, broker_only=broker_only, say=_progress) as running,
            ):
                _show(json, *running.told())
                _progress("Ctrl-C stops everything")
                running.wait()
        except Stopped as stopped:
            _progress(f"{stopped}: all parts have stopped")


@app.command()
def worker(
    name: Annotated[str | None, typer.Option(help="Its name in the group (MILEPOST_WORKER).")] = None,
    json: Json = False,
) -> None:
    """Run one worker in this process, against the broker that is there.  Start more of them to scale out."""
    from milepost.ops.provision import provision
    from milepost.ops.supervise import WORKER

    with _said(json):
        settings = _settings(MILEPOST_WORKER=name)
        provision(settings)
        if json:
            _print(orjson.dumps({"worker": settings.worker, "broker": settings.bootstrap, "page": f"{settings.url}/"}))
        os.execve(WORKER[0], list(WORKER), {**os.environ, **settings.environment()})


@app.command()
def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="End after the answers instead of staying up.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="A folder with flights.csv, airlines.csv, planes.csv and weather.csv.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Wipe the demo's state and log first.")] = False,
    week: Annotated[bool, typer.Option("--week", help="The first week only.")] = False,
    port: Port = None,
    broker_port: BrokerPort = None,
    partitions: Partitions = None,
    json: Json = False,
) -> None:
    """The flights of 2013 with aircraft and weather: `up`, the import, the answers, and the page."""
    from milepost.ops import demo as demonstration
    from milepost.ops.supervise import Stopped, stopping_on_signals

    code = FAILED
    with _said(json, code=FAILED):
        settings = _settings(MILEPOST_PORT=port, MILEPOST_BROKER_PORT=broker_port, MILEPOST_PARTITIONS=partitions)
        try:
            with stopping_on_signals():
                code = demonstration.run(settings, exit_=exit_, json_=json, data=data, fresh=fresh, week=week)
        except Stopped as stopped:
            _progress(f"{stopped}: all parts have stopped")
            code = FAILED if exit_ else 0
    raise typer.Exit(code)


@app.command()
def plan(org: Org, folder: Bundle = None, rollback: Rollback = False, to: To = "", json: Json = False) -> None:
    """Check a bundle and show what applying it would change; with --rollback, what going back would."""
    from milepost.ops.apply import plan_bundle

    with _said(json):
        settings = _settings()
        report = plan_bundle(settings, _bundle(settings, folder, org, rollback, to), org)
        _show(json, dataclasses.asdict(report), report.text())


@app.command()
def apply(org: Org, folder: Bundle = None, rollback: Rollback = False, to: To = "", json: Json = False) -> None:
    """Put a bundle in force: into the log, with a marker in every raw partition; with --rollback, an earlier one."""
    from milepost.ops.access_log import note
    from milepost.ops.apply import apply_bundle

    with _said(json):
        settings = _settings()
        report = apply_bundle(settings, _bundle(settings, folder, org, rollback, to), org)
        if report.changed:
            note(settings, f"milepost apply {org}", report.bundle)
        _show(json, dataclasses.asdict(report), report.text())


@app.command()
def test(
    folder: Annotated[Path, typer.Argument(help="A bundle with tests/*.yaml.")] = Path(), json: Json = False
) -> None:
    """Run the tests of a bundle's rules, without a broker.  Exit 1 when anything is not as expected."""
    from milepost.ops.testing import run_tests

    with _said(json):
        tested = run_tests(folder)
        _show(json, tested.as_data(), tested.text())
        if tested.failed:
            raise typer.Exit(FAILED)


@app.command()
def digest(json: Json = False) -> None:
    """The digest of the logical content of all tables: one line a table and a total."""
    with _said(json), _client(patience_s=600) as client:
        answer = client.digest()
        _show(json, answer, "\n".join(f"{value}  {name}" for name, value in answer.items()))


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete this deployment's state, log, secret and topics, after asking.  The fetched jars stay."""
    from milepost.ops import reset as resetting

    with _said(json):
        settings = _settings()
        targets = resetting.targets(settings)
        if not targets:
            _show(json, {"deleted": []}, f"nothing to delete in {settings.home}")
            return
        if not yes:
            _progress("\n".join(["this deletes, for good:", *(f"  {target}" for target in targets)]))
            with contextlib.suppress(typer.Abort):  # nobody there to ask: that is no yes
                yes = typer.confirm("delete?", err=True)
        if not yes:
            _fail(json, "nothing was deleted; fix: answer y, or give --yes", FAILED)
        _show(json, {"deleted": resetting.reset(settings)}, f"deleted {len(targets)} of {settings.home}")


@app.command()
def bench(
    json: Json = False,
    only: Annotated[str, typer.Option(help="Parts, with commas: " + " ".join(PARTS))] = "",
    events: Annotated[int, typer.Option(help="Different events of the reference job.", min=1_000)] = 400_000,
    quick: Annotated[bool, typer.Option(help="A small run of everything that can run here.")] = False,
    cells: Annotated[int, typer.Option(help="Cells of the large store.", min=1)] = 10_000_000,
    seen: Annotated[int, typer.Option(help="Seen ids of the large store.", min=1)] = 50_000_000,
    out: Annotated[Path, typer.Option(help="Folder for bench.json, bench.md and flame.svg.")] = Path(),
) -> None:
    """Milepost beside Kafka Streams, Quix Streams, Faust and a plain loop on one broker, and its other figures."""
    from milepost.ops.bench.run import Plan, run
    from milepost.ops.supervise import Stopped

    code = FAILED
    with _said(json):
        try:
            parts = [part for part in only.split(",") if part]
            plan = Plan(events=events, only=parts, quick=quick, cells=cells, seen=seen, out=out)
            code = run(_settings(), plan, json_=json)
        except Stopped as stopped:
            _progress(f"{stopped}: all parts have stopped")
    raise typer.Exit(code)


# --- what the commands share


def _settings(**options: object) -> Settings:
    """The settings: the environment, under the options given on the command line."""
    given = {name: str(value) for name, value in options.items() if value is not None}
    return read_settings({**os.environ, **given})


def _bundle(settings: Settings, folder: str | None, org: str, rollback: bool, to: str) -> Mapping[str, bytes]:
    """The bundle that a command names: a folder, or one of the log.  A folder's faults are said before the broker's."""
    from milepost.ops.apply import checked, earlier_bundle, read_files

    if rollback and (folder is None or folder.isdigit()):
        return earlier_bundle(_reachable(settings), org, back=int(folder or 1), to=to)
    if to and folder is None:
        return earlier_bundle(_reachable(settings), org, to=to)
    if folder is None or rollback or to:
        raise DeclarationError("either a folder, or --rollback [N] or --to BUNDLE was expected")
    files = read_files(Path(folder))
    checked(files, org)
    _reachable(settings)
    return files


def _client(settings: Settings | None = None, *, patience_s: float = 30.0) -> Any:
    """A client of the worker: that none is there is said at once, one that restores is waited for."""
    from milepost.ops.access import bearer
    from milepost.ops.client import Client

    settings = settings or _settings()
    if not processes.answers(settings.port, settings.host):
        fix = "start one with `milepost up`, or set MILEPOST_PORT to the port of one that runs"
        raise StoreError(f"no worker answers at {settings.url}; fix: {fix}")
    return Client(settings.url, token=lambda: bearer(settings), patience_s=patience_s, say=_progress)


def _reachable(settings: Settings) -> Settings:
    """The settings, once a broker answers: asking first gives a short error where a producer would wait."""
    from milepost.ops.provision import cluster_id

    cluster_id(settings)
    return settings


@contextlib.contextmanager
def _said(json: bool, code: int | None = None) -> Iterator[None]:
    """Turn our errors into a message and an exit code (`code`, else by the error's class)."""
    from milepost.ops.client import Refused

    try:
        yield
    except Refused as error:
        guess, fix = error.problem.get("guess"), error.problem.get("fix")
        more = (f"; did you mean {guess}?" if guess else "") + (f"{' F' if guess else '; f'}ix: {fix}" if fix else "")
        _fail(json, f"{error}{more}", code or REFUSED, problem=error.problem)
    except DeclarationError as error:
        findings = [dataclasses.asdict(one) for one in getattr(error, "findings", ())]
        _fail(json, str(error), code or DECLARATION, **({"findings": findings} if findings else {}))
    except StoreError as error:
        _fail(json, str(error), code or NOTHING_ANSWERS)
    except MilepostError as error:
        _fail(json, str(error), code or FAILED)
    except KeyboardInterrupt:
        _fail(json, "stopped by Ctrl-C", INTERRUPTED)


def _fail(json: bool, said: str, code: int, **more: object) -> NoReturn:
    typer.secho(f"milepost: {said}", err=True, fg="red")
    if json:
        _print(orjson.dumps({"error": said, **more}))
    raise typer.Exit(code)


def _show(json: bool, data: object, text: str) -> None:
    _print(orjson.dumps(data, option=orjson.OPT_INDENT_2) if json else text.encode())


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def _progress(line: str) -> None:
    typer.echo(line, err=True)


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _question(
    company: str | None, at: str | None, basis: str | None, window: str | None, tz: str | None, dim: list[str] | None
) -> dict[str, str | int | None]:
    """What questions have in common, as parameters."""
    asked: dict[str, str | int | None] = {"company": company, "at": at, "basis": basis, "window": window, "tz": tz}
    for pair in dim or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise DeclarationError(f"--dim {pair!r}: expected name=value, as --dim origin=EWR")
        asked[f"dim.{name}"] = value
    return asked


def _answer(answer: dict[str, Any]) -> str:
    """An answer for people: a value with its unit and how final it is, or one line a row."""

    def number(row: dict[str, Any]) -> str:
        return f"– ({row.get('reason')})" if row.get("value") is None else f"{row['value']:,}"

    if "points" in answer:
        return "\n".join(f"{point['start']}  {number(point)}" for point in answer["points"])
    if "rows" in answer:
        return "\n".join(f"{row.get('label') or row.get('key')!s:24}  {number(row)}" for row in answer["rows"])
    facts = [answer.get("unit"), answer.get("basis"), answer.get("at") and f"at {answer['at']}", answer.get("finality")]
    return "  ".join([number(answer), *(str(fact) for fact in facts if fact)])
