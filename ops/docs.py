"""Docs: the generated parts of the pages, written between their marks, and the files that are generated whole.

    <!-- generated: NAME -->
    …
    <!-- end -->

`python -m milepost.ops.docs PAGE…` writes them anew (without a page all of `PAGES`, from the repository's root);
`--check` changes nothing and exits 1 when a page is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from milepost.ops import dashboards, manual, starter, telemetry
from milepost.ops.alerts import rules
from milepost.ops.settings import VARIABLES
from milepost.schemas.errors import DeclarationError
from milepost.topology import by_library, cel, describe, functions, meanings, patterns

_BLOCK: Final = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def diagram() -> str:
    return f"```mermaid\n{describe.mermaid().rstrip()}\n```\n"


def line() -> str:
    return f"```text\n{describe.text().rstrip()}\n```\n"


def settings() -> str:
    rows = [f"| `{name}` | {_cell(default)} | {means} |" for name, (default, means) in VARIABLES.items()]
    return "\n".join(["| variable | default | what |", "|---|---|---|", *rows]) + "\n"


def budgets() -> str:
    """What bounds a rule, from the constants that do."""
    rows = (
        ("length", f"{cel.TEXT_MAX:,} bytes", "plan"),
        ("levels, nodes of its tree", f"{cel.DEPTH_MAX}, {cel.NODES_MAX:,}", "plan"),
        ("loops inside one another", f"{functions.LOOPS_MAX}", "plan"),
        ("a pattern", f"{patterns.PATTERN_MAX} bytes", "plan"),
        (
            "all its patterns, repetitions written out",
            f"{patterns.SIZE_MAX:,} characters, {patterns.LOOPED_SIZE_MAX} of them inside loops",
            "plan",
        ),
        ("steps of its loops", f"{meanings.STEPS_MAX:,} an event", "dead letter"),
        ("what + makes of texts or lists", f"{meanings.JOINED_MAX:,} characters or elements", "dead letter"),
        (
            "what the library goes through in a loop",
            f"{by_library.UNITS_MAX:,} characters and elements; {by_library.SEARCHED_UNITS_MAX:,} with searches",
            "dead letter",
        ),
    )
    lines = [f"| {what} | {bound} | {where} |" for what, bound, where in rows]
    return "\n".join(["| of a rule | at most | beyond it |", "|---|---|---|", *lines]) + "\n"


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "diagram": diagram,
    "line": line,
    "settings": settings,
    "budgets": budgets,
    "telemetry": telemetry.table,
    "alerts": rules.sections,
}

WHOLE: Final[Mapping[str, Callable[[], str]]] = {
    "ops/alerts.yml": rules.rules,
    "ops/alerts_test.yml": rules.trials,
    "ops/grafana/dashboards/milepost.json": dashboards.dashboard,
    **{f"ops/{one}/{manual.PAGE}": partial(manual.page_of, one) for one in ("demo_bundle", *starter.KINDS.values())},
}
"""Files that nobody writes by hand."""

PAGES: Final = ("README.md", "ARCHITECTURE.md", "ops/RUNBOOK.md", *WHOLE)


def written(page: str) -> str:
    """The page with its generated parts as they must be.  DeclarationError for a part that nobody generates."""

    def part(found: re.Match[str]) -> str:
        name = found[2]
        if name not in PARTS:
            raise DeclarationError(f"nothing generates {name!r}; known: {', '.join(PARTS)}")
        return found[1] + PARTS[name]() + found[3]

    return _BLOCK.sub(part, page)


def wanted_of(name: str, page: str) -> str:
    """What the page, or the whole file, of this name must be; `page`: what it is."""
    return WHOLE[name]() if name in WHOLE else written(page)


def main(arguments: Sequence[str]) -> int:
    check = "--check" in arguments
    stale = 0
    for name in [one for one in arguments if one != "--check"] or PAGES:
        path = Path(name)
        if not path.exists() and name not in WHOLE:
            continue
        page = path.read_text() if path.exists() else ""
        wanted = wanted_of(name, page)
        if page != wanted:
            stale += 1
            sys.stderr.write(f"{path} {'is stale; fix: make docs' if check else 'written'}\n")
            if not check:
                path.write_text(wanted)
    return 1 if check and stale else 0


def _cell(default: str) -> str:
    return f"`{default}`" if default and " " not in default else default


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
