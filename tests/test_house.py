"""House rules: what the repository must look like, held by tests instead of by memory."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from milepost.agents.views.openapi import EVERYBODY
from milepost.ops import docs
from tests.support import doors

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "ops", "schemas", "topology")
FOLDERS = {*ROOMS, ".ci", "requirements", "src", "tests"}
LINES_MAX = 500
TEST_LINES_MAX = 800  # a list of examples is read one at a time


def tracked(*suffixes: str) -> list[Path]:
    """The repository's files, by git where there is git, else by walking."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0:
        names = [name for name in done.stdout.decode().split("\0") if name]
    else:
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts]
    paths = [ROOT / name for name in names]
    return [one for one in paths if one.is_file() and (not suffixes or one.suffix in suffixes) and not _linked(one)]


def _linked(path: Path) -> bool:
    return any(parent.is_symlink() for parent in (path, *path.parents) if parent != ROOT and ROOT in parent.parents)


MODULES = [path for path in tracked(".py") if path.parts[len(ROOT.parts)] in (*ROOMS, "src", "tests")]
OURS = [path for path in MODULES if path.parts[len(ROOT.parts)] in ROOMS]


def test_the_repository_has_its_rooms_and_no_others() -> None:
    """Top-level folders are the rooms, the tests, the doorplate and what builds them."""
    found = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    assert found <= FOLDERS, sorted(found - FOLDERS)
    assert set(ROOMS) <= found


def test_the_doorplate_is_relative_links() -> None:
    """src/milepost reaches each room by a relative symbolic link, so a clone works wherever it lies."""
    for room in ROOMS:
        link = ROOT / "src" / "milepost" / room
        assert link.is_symlink() and str(link.readlink()) == f"../../{room}"
        assert (ROOT / room / "__init__.py").is_file()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_what_it_is(path: Path) -> None:
    """Each module has a docstring, a bounded length, and reaches the rooms under the package's name."""
    source = path.read_text()
    tree = ast.parse(source)
    if source.strip():
        assert ast.get_docstring(tree), "no docstring"
    lines_max = LINES_MAX if path in OURS else TEST_LINES_MAX
    assert source.count("\n") <= lines_max, f"{source.count(chr(10))} lines"
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in ROOMS, f"line {node.lineno}: import milepost.{name}"


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_error_is_swallowed_unnamed(path: Path) -> None:
    """No handler catches everything in silence: an empty body is only allowed for a named error."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(one, ast.Pass) for one in node.body):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("everything", "Exception", "BaseException"), f"line {node.lineno}"


def test_a_test_is_a_true_sentence() -> None:
    """Every test function has a docstring."""
    silent = []
    for path in (one for one in MODULES if one.name.startswith("test_")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if named and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent


def test_nothing_is_left_for_later() -> None:
    """No marks of unfinished work, and no paths of the machine it was written on."""
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    paths = re.compile(r"(?<![\w.$}])/(wo" + r"rk|home/\w+|ro" + r"ot)/[a-z]")
    left = []
    for path in tracked(".py", ".js", ".md", ".toml", ".yml", ".yaml", ".txt", ".json", ".avsc", ""):
        if "vendor" in path.parts or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if marks.search(line) or paths.search(line):
                left.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not left


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements/*.txt")), ids=lambda path: path.name)
def test_locks_pin_by_hash_and_name_no_address(path: Path) -> None:
    """Every requirement of a lock has a version and hashes; no lock says where it was fetched."""
    text = path.read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    if path.name != "overrides.txt":
        names = re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE)
        blocks = re.split(r"\n(?=[a-z0-9])", text.strip())
        assert len(names) == len(blocks) and all("--hash=sha256:" in block for block in blocks)
        assert "pandas" not in [name for name, block in zip(names, blocks, strict=True) if "'never'" not in block]


def test_every_route_says_which_role_opens_it() -> None:
    """A route names a role, or that it is open to everybody; those that are, are few and hold nothing of anybody."""
    routes = doors.table()
    assert not [f"{one.method} {one.path}" for one in routes if one.role is None]
    assert {one.path for one in routes if one.role == EVERYBODY} == {
        "/", "/page/{path:.+}", "/healthz", "/readyz", "/internal/parts", "/v1/session", "/v1/session:end",
    }  # fmt: skip
    changing = {one.path for one in routes if one.method != "GET" and one.role == "read"}
    assert changing == {"/v1/definitions:plan", "/v1/presence"}, "what changes something is not opened by `read`"


def test_no_lock_file_with_addresses_is_committed() -> None:
    """uv.lock, poetry.lock and their like hold registries' addresses."""
    assert not [path for path in tracked() if path.name in ("uv.lock", "poetry.lock", "pdm.lock", "package-lock.json")]


def test_generated_parts_of_the_pages_are_fresh() -> None:
    """Diagrams, tables, dashboard and alerts are what the code says now (`make docs` writes them)."""
    for name in docs.PAGES:
        page = (ROOT / name).read_text()
        assert docs.wanted_of(name, page) == page, f"{name} is stale; fix: make docs"


def test_the_wheel_holds_ordinary_files(tmp_path: Path) -> None:
    """A wheel alone carries code, contracts, the jar list, the demo's bundle and the page, and no link."""
    clone = tmp_path / "clone"
    for path in tracked():
        copy = clone / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for room in ROOMS:
        (clone / "src" / "milepost" / room).symlink_to(f"../../{room}")
    (clone / "README.md").touch()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(clone)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("milepost-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert not [one for one in archive.infolist() if (one.external_attr >> 16) & 0o170000 == 0o120000]
    shipped = [path for path in tracked() if path.relative_to(ROOT).parts[0] in ROOMS]
    suffixes = (".py", ".avsc", ".html", ".js", ".css")
    wanted = {f"milepost/{path.relative_to(ROOT)}" for path in shipped if path.suffix in suffixes}
    wanted |= {
        "milepost/ops/jars.lock.json",
        "milepost/ops/registry.lock.json",
        "milepost/py.typed",
        "milepost/__main__.py",
    }
    assert not wanted - names, sorted(wanted - names)
