"""The page's files as they lie in the folder: what a browser is sent holds to the policy that it is sent with."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "agents" / "views" / "page"
VENDOR = PAGE / "vendor"
OURS = sorted(
    file for file in PAGE.rglob("*") if file.suffix in {".html", ".js", ".css", ".svg"} and VENDOR not in file.parents
)


def test_vendored_files_are_as_published() -> None:
    """Every vendored file is listed with its SHA-256, and is that file."""
    listed = dict(re.findall(r"`([\w.]+)`[^|]*\| `([0-9a-f]{64})`", (VENDOR / "VENDORED.md").read_text()))
    found = {file.name: file for file in VENDOR.iterdir() if file.name != "VENDORED.md"}
    assert sorted(listed) == sorted(found)
    for name, digest in listed.items():
        assert hashlib.sha256(found[name].read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_nothing_is_asked_of_another_host(file: Path) -> None:
    """No file of the page names an outside address; a namespace is a name."""
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?:)?//[\w-]+\.\w", text)
    assert not re.search(r"[\"'(]data:", text), "the policy refuses data: addresses"


def test_there_is_no_script_or_style_in_the_markup() -> None:
    """The markup has no inline script, style or handler, so that the policy needs no `unsafe-inline`."""
    markup = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)[^>]*>", markup) == []
    assert "<style" not in markup
    assert re.findall(r"\s(?:style|on\w+)=", markup) == []


@pytest.mark.parametrize("file", [file for file in OURS if file.suffix == ".js"], ids=lambda file: file.name)
def test_text_never_becomes_markup(file: Path) -> None:
    """No module turns text into markup or code."""
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", file.read_text()
    )


@pytest.mark.parametrize("file", [file for file in OURS if file.suffix == ".js"], ids=lambda file: file.name)
def test_every_module_says_what_it_is_and_imports_what_exists(file: Path) -> None:
    """A module opens with what it is, and each name it imports from a neighbour is exported there."""
    text = file.read_text()
    assert text.startswith("/**")
    assert len(text.splitlines()) <= 400
    for names, neighbour in re.findall(r'import \{([^}]*)\} from "(\.\.?/[\w./]+)"', text):
        exported = (file.parent / neighbour).read_text()
        for name in names.split(","):
            assert re.search(rf"export (?:async )?(?:function|const|class) {name.strip()}\b", exported), (
                neighbour,
                name,
            )
            assert len(re.findall(rf"\b{name.strip()}\b", text)) > 1, (
                f"{file.name} imports {name.strip()} and does not use it"
            )


def test_every_id_that_a_script_reaches_for_is_in_the_markup() -> None:
    """Each `$("id")` of the page is the id of one element."""
    ids = re.findall(r'\sid="([\w-]+)"', (PAGE / "index.html").read_text())
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\$\("([\w-]+)"\)', (PAGE / "main.js").read_text())) <= set(ids)


def test_every_screen_is_in_the_list_and_has_its_style() -> None:
    """Each module of `screens/` is imported by the list of screens under its own name, and its style sheet is linked."""
    listed, markup = (PAGE / "screens.js").read_text(), (PAGE / "index.html").read_text()
    names = re.findall(r'import (\w+) from "\./screens/(\w+)\.js"', listed)
    order = re.findall(r"SCREENS = \[(.*)\]", listed)[0].split(", ")
    assert sorted(order) == sorted(name for name, _ in names) and all(one == other for one, other in names)
    for name in order:
        assert re.search(rf'\bname: "{name}"', (PAGE / "screens" / f"{name}.js").read_text())
        assert f'href="/page/screens/{name}.css"' in markup and (PAGE / "screens" / f"{name}.css").is_file()
        assert re.search(rf'NAMES = \[[^\]]*"{name}"', (PAGE / "question.js").read_text())


def test_every_control_has_a_name() -> None:
    """Each input and select of the markup has a label."""
    markup = (PAGE / "index.html").read_text()
    labelled = set(re.findall(r'<label[^>]*\sfor="([\w-]+)"', markup))
    controls = re.findall(r'<(?:select|input(?![^>]*type="radio"))[^>]*\sid="([\w-]+)"', markup)
    assert controls and set(controls) <= labelled
