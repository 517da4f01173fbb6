"""Testing: the tests of a bundle's folder, run in process and told with file, line, what was expected and what came.

FOLDER/milepost.yaml, schemas/*.avsc      the bundle
FOLDER/tests/**/*.yaml                    its tests: see topology/rule_cases.py
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.ops.apply import read_files
from milepost.schemas.errors import DeclarationError
from milepost.topology.rule_cases import read_cases
from milepost.topology.rule_runs import Difference, Result, run_cases

FOLDER: Final = "tests"
FILES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What became of the tests of a folder."""

    folder: Path
    results: tuple[Result, ...]

    @property
    def failed(self) -> int:
        return sum(not one.passed for one in self.results)

    def as_data(self) -> dict[str, Any]:
        tests = [{**dataclasses.asdict(one), "passed": one.passed} for one in self.results]
        return {"passed": len(self.results) - self.failed, "failed": self.failed, "tests": tests}

    def text(self) -> str:
        """A line a test that passed; of the others what was expected and what came."""
        lines = []
        for one in self.results:
            lines.append(f"  {'ok' if one.passed else 'FAILED':6}  {one.file}:{one.line}  {one.name}")
            for difference in one.differences:
                lines += _difference(one, difference)
        lines.append(f"{len(self.results) - self.failed} passed, {self.failed} failed")
        return "\n".join(lines)


def run_tests(folder: Path) -> Tested:
    """Run all tests of a bundle's folder.

    Raises BundleError (the bundle or a test does not validate) and DeclarationError (there are none).
    """
    files = read_files(folder)
    paths = sorted(one for one in (folder / FOLDER).rglob("*") if one.suffix in (".yaml", ".yml") and one.is_file())
    if not paths:
        raise DeclarationError(f"{folder / FOLDER} holds no tests; fix: `milepost init` writes one to begin with")
    if len(paths) > FILES_MAX:
        raise DeclarationError(f"{folder / FOLDER} holds {len(paths)} files; expected at most {FILES_MAX}")
    cases = read_cases({one.relative_to(folder).as_posix(): one.read_bytes() for one in paths})
    return Tested(folder=folder, results=tuple(run_cases(files, cases)))


def _difference(result: Result, one: Difference) -> list[str]:
    lines = [f"          {result.file}:{one.line}:{one.column}  {one.what}"]
    if one.expected:
        lines.append(f"            - {one.expected}")
    lines.append(f"            + {one.came or 'nothing'}")
    return lines
