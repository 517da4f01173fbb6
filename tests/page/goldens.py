"""Golden files of what a screen reader is told: roles, names and states, as Playwright writes them down.

A page that is to change changes its file as well: delete it, run the test (which writes it and fails), look at it, keep it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).with_name("goldens")


def same(name: str, place: Any, *moving: tuple[str, str]) -> None:
    """The snapshot of a place equals goldens/NAME.yaml.  moving: (pattern, word) of what is another each time."""
    told = place.aria_snapshot() + "\n"
    for pattern, word in moving:
        told = re.sub(pattern, word, told)
    file = FOLDER / f"{name}.yaml"
    if not file.exists():
        FOLDER.mkdir(exist_ok=True)
        file.write_text(told)
        raise AssertionError(f"{file.name} was not there; it is written now: look at it, keep it, and run again")
    assert told == file.read_text(), f"goldens/{file.name}: delete it and run again to write it anew"
