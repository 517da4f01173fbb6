"""What the tests of the screens do with a page: wait for its answers, move its slider."""

from __future__ import annotations

import urllib.parse
from typing import Any

WAIT_MS = 30_000
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
POSITIONS = (0.25, 0.6, 0.97)


def settled(page: Any) -> dict[str, str]:
    """Wait until the screen answers the address; returns the question."""
    page.wait_for_function(
        """() => { const s = document.getElementById('status');
        return s.dataset.state === 'ready' && '?' + s.dataset.question === location.search; }""",
        timeout=WAIT_MS,
    )
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page.url).query))


def moved(page: Any, before: str) -> dict[str, str]:
    """Wait until the address is another, and answered."""
    page.wait_for_function("before => location.href !== before", arg=before, timeout=WAIT_MS)
    return settled(page)


def slide(page: Any, part: float) -> dict[str, str]:
    """Move the time slider to a part of its range."""
    before = page.url
    page.locator("#at").evaluate(
        """(at, part) => { at.value = String(Math.round(Number(at.max) * part));
        at.dispatchEvent(new Event('input', {bubbles: true})); at.dispatchEvent(new Event('change', {bubbles: true})); }""",
        part,
    )
    return moved(page, before)


def switch(page: Any, basis: str) -> dict[str, str]:
    """Choose a basis."""
    before = page.url
    page.locator(f"#basis input[value={basis}]").check(force=True)
    return moved(page, before)


def when(question: dict[str, str]) -> dict[str, str]:
    """The parameters of the moment, as the API takes them."""
    return {name: question[name] for name in ("at", "basis") if name in question}


def fits(page: Any) -> bool:
    """Whether nothing is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def written(value: Any) -> str:
    """A number as JavaScript writes it."""
    return "" if value is None else str(int(value)) if float(value).is_integer() else repr(float(value))


def quiet(page: Any) -> bool:
    """Whether the console has no error."""
    assert page.said == []
    return True
