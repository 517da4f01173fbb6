"""The commands around a bundle's folder: `init` writes one that holds, `test` runs its tests and says what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from milepost.ops import cli, starter
from milepost.ops.apply import demo_bundle, plan_bundle, read_files
from milepost.ops.provision import provision
from milepost.ops.settings import Settings
from milepost.ops.testing import run_tests
from milepost.topology.bundle import BundleText
from milepost.topology.catalog import load_bundle
from tests.support.manual import MANUAL

DEMO = Path(str(starter.__file__)).parent / "demo_bundle"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.broker
def test_what_init_writes_passes_test_and_plan(tmp_path: Path, settings: Settings) -> None:
    """A fresh folder's tests pass, its bundle loads and can be planned; its commented parts hold as well."""
    folder = tmp_path / "new" / "desk"
    written = run("init", str(folder))
    assert written.exit_code == 0, written.stderr
    assert {Path(one).relative_to(folder).as_posix() for one in written.stdout.split()} == {
        "milepost.yaml", "milepost.schema.json", "schemas/OrderPaid.avsc", "tests/orders.yaml",
    }  # fmt: skip
    tested = run("test", str(folder))
    assert tested.exit_code == 0 and "2 passed, 0 failed" in tested.stdout, tested.stdout
    files = read_files(folder)
    assert set(files) == {"milepost.yaml", "schemas/OrderPaid.avsc"}, "tests and the schema are not applied"
    provision(settings)
    assert {one.how for one in plan_bundle(settings, folder, "acme").changes} == {"added"}
    text = files["milepost.yaml"].decode()
    head, _, commented = text.partition("# milestones:")
    whole = head + "milestones:" + commented.replace("\n# ", "\n")
    catalog = load_bundle({**files, "milepost.yaml": whole.encode()})
    assert list(catalog.plans) == ["onboarding"] and catalog.plans["onboarding"].org == "acme"


def test_init_never_overwrites_unasked(tmp_path: Path) -> None:
    """One file that is there, and nothing is written; --force writes all, --schema only what no hand has made."""
    (tmp_path / "milepost.yaml").write_text("mine")
    refused = run("init", str(tmp_path))
    assert refused.exit_code == cli.DECLARATION and "holds milepost.yaml already; nothing was written" in refused.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["milepost.yaml"]
    (tmp_path / starter.SCHEMA).write_text("old")
    assert run("init", str(tmp_path), "--schema").exit_code == 0
    assert (tmp_path / starter.SCHEMA).read_bytes() == starter.schema()
    assert (tmp_path / "milepost.yaml").read_text() == "mine"
    assert run("init", str(tmp_path), "--force").exit_code == 0
    assert (tmp_path / "milepost.yaml").read_text().startswith(f"# yaml-language-server: $schema=./{starter.SCHEMA}\n")
    (tmp_path / "file").touch()
    assert "cannot be written" in run("init", str(tmp_path / "file" / "below")).stderr


def test_the_schema_for_editors_knows_what_the_reader_knows() -> None:
    """Each model's keys, and no others; a record may be one or several; what a key means stands at it."""
    schema = json.loads(starter.schema())
    assert set(schema["properties"]) == set(BundleText.model_fields)
    assert accepted(schema, schema, load(MANUAL.encode())) == []
    assert accepted(schema, schema, load(demo_bundle()["milepost.yaml"])) == []
    assert accepted(schema, schema, load(MANUAL.replace("required: true", "requird: true").encode())) == ["requird"]
    assert accepted(schema, schema, load(MANUAL.replace("kind: achieve", "kind: achive").encode())) == ["'achive'"]
    several = MANUAL.replace("aircraft: {on", "aircraft: [{on").replace("seats: data.seats}}", "seats: data.seats}}]")
    assert accepted(schema, schema, load(several.encode())) == []
    assert "dead letter" in schema["$defs"]["IdentityText"]["properties"]["required"]["description"]


def load(text: bytes) -> Any:
    from milepost.topology.document import read

    return read("milepost.yaml", text.decode()).value


def accepted(schema: Any, whole: Any, value: Any) -> list[str]:
    """What a JSON Schema has against a value: as much of the standard as ours uses."""
    if "$ref" in schema:
        return accepted(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole, value)
    if "anyOf" in schema:
        tried = [accepted(one, whole, value) for one in schema["anyOf"]]
        return min(tried, key=len)
    if "enum" in schema or "const" in schema:
        return [] if value in schema.get("enum", [schema.get("const")]) else [repr(value)]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    if not isinstance(value, kinds.get(schema.get("type"), object)):  # type: ignore[arg-type]
        return [f"{value!r} is no {schema['type']}"]
    found: list[str] = []
    if isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, one in value.items():
            if name in known:
                found += accepted(known[name], whole, one)
            elif isinstance(rest, dict):
                found += accepted(rest, whole, one)
            elif not rest and "patternProperties" not in schema:
                found.append(name)
            for part in schema.get("patternProperties", {}).values():
                found += accepted(part, whole, one)
    if isinstance(value, list):
        found += [fault for one in value for fault in accepted(schema.get("items", {}), whole, one)]
    return found


def test_the_demos_tests_pass() -> None:
    """The demo's bundle has tests, and the engine meets them."""
    tested = run_tests(DEMO)
    assert tested.failed == 0 and len(tested.results) >= 5, tested.text()


def test_a_failed_test_is_told_with_file_line_and_both_sides(tmp_path: Path) -> None:
    """Exit 1, what was expected and what came; with --json the same as data."""
    assert run("init", str(tmp_path)).exit_code == 0
    file = tmp_path / "tests" / "orders.yaml"
    file.write_text(file.read_text().replace("value: 0.5", "value: 0.75"))
    line = next(i for i, text in enumerate(file.read_text().split("\n"), 1) if "0.75" in text)
    failed = run("test", str(tmp_path))
    assert failed.exit_code == cli.FAILED and "1 passed, 1 failed" in failed.stdout
    lines = [one.strip() for one in failed.stdout.splitlines()]
    at = lines.index(f"tests/orders.yaml:{line}:11  metric")
    assert lines[at + 1 : at + 3] == ["- large_share = 0.75", "+ large_share = 0.5"]
    data = json.loads(run("test", str(tmp_path), "--json").stdout)
    assert (data["passed"], data["failed"]) == (1, 1)
    assert data["tests"][0]["differences"] == [
        {"what": "metric", "line": line, "column": 11, "expected": "large_share = 0.75", "came": "large_share = 0.5"}
    ]


def test_tests_that_cannot_run_are_refused(tmp_path: Path) -> None:
    """No bundle, no tests, a broken bundle, a test that names what there is not: exit 2 and what to do."""
    assert "holds no milepost.yaml" in run("test", str(tmp_path)).stderr
    run("init", str(tmp_path))
    file = tmp_path / "tests" / "orders.yaml"
    text = file.read_text()
    file.write_text(text.replace("signal: sold_large", "signal: sold_larg"))
    named = run("test", str(tmp_path), "--json")
    assert named.exit_code == cli.DECLARATION
    assert json.loads(named.stdout)["findings"][0]["guess"] == "sold_large"
    file.unlink()
    none = run("test", str(tmp_path))
    assert none.exit_code == cli.DECLARATION and "holds no tests; fix: `milepost init`" in none.stderr
    file.write_text(text)
    main = tmp_path / "milepost.yaml"
    main.write_text(main.read_text().replace("data.amount >= 1000.0", "data.email == 'x'"))
    assert "pii of shop; rules do not read it" in run("test", str(tmp_path)).stderr
