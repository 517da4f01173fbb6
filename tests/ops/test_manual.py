"""Manual as files: the committed pages are those of the definitions, and `describe` writes, prints and checks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from milepost.ops import cli, docs, manual, starter
from milepost.ops.apply import apply_bundle, demo_bundle, plan_against
from milepost.ops.provision import provision
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError
from milepost.topology.bases import written
from tests.support import documented, small

ROOT = Path(__file__).resolve().parents[2]
PAGES = [name for name in docs.WHOLE if name.endswith(manual.PAGE)]


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, list(arguments))
    return done.exit_code, done.stdout


def bundle(folder: Path, files: dict[str, bytes]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_a_committed_page_says_what_the_definitions_say(page: str) -> None:
    """The demo's and the starters' pages are as `make docs` writes them, and a page that says otherwise is seen."""
    assert len(PAGES) == 1 + len(starter.KINDS)
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    assert docs.WHOLE[page]() == text, "fix: make docs"
    assert run("describe", "--docs", "--check", str(folder), "--bundle", str(folder))[0] == 0
    assert manual.difference(folder, text.replace("Unit", "Units")) != ""


def test_a_definition_that_changes_is_found_by_the_check(tmp_path: Path) -> None:
    """Exit 1 with a diff that names what differs; written anew it agrees; a page that is absent differs, too."""
    folder = bundle(tmp_path / "bundle", demo_bundle())
    same = ("describe", "--docs", "--check", str(folder), "--bundle", str(folder))
    assert run(*same)[0] == cli.FAILED
    code, said = run("describe", "--docs", str(folder), "--bundle", str(folder))
    assert (code, said.strip()) == (0, str(folder / manual.PAGE))
    assert run(*same)[0] == 0
    main = folder / "milepost.yaml"
    main.write_text(main.read_text().replace("data.dep_delay <= 15.0", "data.dep_delay <= 10.0"))
    code, said = run(*same)
    assert code == cli.FAILED
    assert "-Each [flight.departed](#type-flight.departed) event of which dep_delay is at most 15 " in said
    assert "+Each [flight.departed](#type-flight.departed) event of which dep_delay is at most 10 " in said
    code, said = run(*same, "--json")
    assert code == cli.FAILED and json.loads(said)["agrees"] is False
    run("describe", "--docs", str(folder), "--bundle", str(folder))
    assert run(*same) == (0, f"{folder / manual.PAGE} says what runs\n")


def test_describe_prints_page_picture_and_events(tmp_path: Path) -> None:
    """Without a folder to stdout; with one as files; without --bundle and --org the picture is the line's."""
    folder = bundle(tmp_path / "bundle", demo_bundle())
    code, said = run("describe", "--docs", "--bundle", str(folder))
    assert code == 0 and said == (ROOT / "ops/demo_bundle" / manual.PAGE).read_text()
    code, said = run("describe", "--mermaid", "--bundle", str(folder))
    assert code == 0 and '"departures"' in said and "raw_events" not in said
    code, said = run("describe", "--openlineage", "--bundle", str(folder), "--org", "port-authority")
    told = [json.loads(line) for line in said.splitlines()]
    assert code == 0 and {one["producer"] for one in told} == {manual.PRODUCER}
    assert told[0]["dataset"]["namespace"] == "milepost://port-authority"
    code, said = run("describe", "--openlineage", str(tmp_path / "out"), "--bundle", str(folder), "--json")
    assert json.loads(said)["events"] == len(told) == len((tmp_path / "out" / manual.EVENTS).read_text().splitlines())


@pytest.mark.parametrize(
    "wrong",
    [
        ("describe", "--docs", "--openlineage", "--bundle", "."),
        ("describe", "somewhere"),
        ("describe", "--docs", "--check", "--bundle", "."),
        ("describe", "--docs", "--bundle", "/nowhere"),
    ],
)
def test_wrong_use_is_said_with_a_fix(wrong: tuple[str, ...]) -> None:
    """Options that do not go together, and a folder without a bundle, end with exit 2."""
    assert run(*wrong)[0] == cli.DECLARATION


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    """A file in the place of the folder, and a page that is no text."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DeclarationError, match="cannot be written"):
        manual.write(tmp_path / "file", manual.PAGE, "")
    (tmp_path / manual.PAGE).write_bytes(b"\xff\xfe")
    with pytest.raises(DeclarationError, match="cannot be read"):
        manual.difference(tmp_path, "")


def test_a_long_difference_is_cut(tmp_path: Path) -> None:
    """It has a bound, and says what to do."""
    found = manual.difference(tmp_path, "\n".join(map(str, range(1_000)))).splitlines()
    assert len(found) == manual.DIFFERENCE_MAX + 1 and "fix: milepost describe --docs" in found[-1]


def test_a_starter_is_written_without_the_page_made_of_it(tmp_path: Path) -> None:
    """Whoever begins with it changes it: the page would be another's."""
    for kind in starter.KINDS:
        assert manual.PAGE not in starter.files_of(kind)
    written = starter.write(tmp_path)
    assert tmp_path / "milepost.yaml" in written and not (tmp_path / manual.PAGE).exists()


def test_plan_warns_of_sources_that_nobody_owns() -> None:
    """A warning, not a finding: it can be applied all the same."""
    report = plan_against([], documented.FILES, documented.ORG)
    assert report.owners == ("source shop has no owner: nobody is asked when it falls silent",)
    assert "  warning: source shop has no owner" in report.text()
    assert plan_against([], demo_bundle(), "port-authority").owners == ()


@pytest.mark.broker
def test_the_definitions_in_force_are_documented(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the broker: the newest of an organisation; the name may be left out while there is one."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    provision(settings)
    assert "those with definitions: none" in CliRunner().invoke(cli.app, ["describe", "--docs"]).stderr
    apply_bundle(settings, small.FILES, small.ORG)
    apply_bundle(settings, demo_bundle(), "port-authority")
    said = CliRunner().invoke(cli.app, ["describe", "--docs"])
    assert said.exit_code == cli.DECLARATION and "acme, port-authority" in said.stderr
    code, page = run("describe", "--docs", "--org", "port-authority")
    assert code == 0 and page == (ROOT / "ops/demo_bundle" / manual.PAGE).read_text()
    assert run("describe", "--docs", "--check", str(ROOT / "ops/demo_bundle"), "--org", "port-authority")[0] == 0
    assert run("describe", "--docs", "--check", str(ROOT / "ops/demo_bundle"), "--org", "acme")[0] == cli.FAILED
    told = [json.loads(line) for line in run("describe", "--openlineage", "--org", "acme")[1].splitlines()]
    assert {one["eventTime"] for one in told} == {written(manual.in_force(settings, "acme").at_ms)}
