"""Errors: what went wrong, and by its class who acts.

    MilepostError
    ├── ContractError        the record's author: the record becomes a dead letter, the line goes on
    │   └── RuleError        ... of one pair (event, rule)
    ├── DeclarationError     the developer: what was declared does not hold; nothing starts, nothing is applied
    │   └── BundleError      ... in a bundle of definitions, with every finding at its line and column
    └── StoreError           the operator: a table or a topic is not what it must be; stop and restore

A message says what was expected, what came, and where.  It never holds values of `data`: they may be personal, and
messages travel to logs, dead letters and answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

Reason = Literal[
    "not_decodable",
    "unknown_schema",
    "unknown_source",
    "unknown_type",
    "missing_key",
    "contract_violation",
    "id_conflict",
    "identity_changed",
    "future_event",
    "out_of_range",
    "too_large",
    "rule_error",
    "poison",
]
"""Why a record (or a pair of event and rule) ended as a dead letter: a closed list, used as a telemetry label."""

DropReason = Literal["duplicate", "superseded", "no_rule", "misrouted", "foreign_tombstone"]
"""Why a record ended without effect, as intended: a closed list, used as a telemetry label."""

REASONS: Final[frozenset[str]] = frozenset(get_args(Reason))
DROPS: Final[frozenset[str]] = frozenset(get_args(DropReason))


class MilepostError(Exception):
    """The root of all errors of ours."""


class ContractError(MilepostError):
    """A record breaks its contract.  Its author acts; the record becomes a dead letter.

    reason: one of `REASONS`
    detail: what was expected and what came; no values of `data`
    at:     the raw position (`raw-events/3@1288`) once it is known, else None
    """

    def __init__(self, reason: Reason, detail: str, at: str | None = None) -> None:
        super().__init__(reason, detail, at)
        self.reason: Reason = reason
        self.detail = detail
        self.at = at

    def __str__(self) -> str:
        where = f" ({self.at})" if self.at else ""
        return f"{self.reason}: {self.detail}{where}"


class RuleError(ContractError):
    """A rule's expression has no value for this event: the pair (event, rule) becomes a dead letter."""

    def __init__(self, detail: str, at: str | None = None) -> None:
        super().__init__("rule_error", detail, at)

    def __reduce__(self) -> tuple[type[RuleError], tuple[str, str | None]]:
        return type(self), (self.detail, self.at)


class DeclarationError(MilepostError):
    """Something declared (a definition, a setting, a topic) does not hold.  The developer acts; nothing starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing wrong with a bundle.

    file:    `milepost.yaml` or `schemas/NAME.avsc`
    line, column: from 1; where the value that is wrong begins
    message: what was expected and what came
    guess:   the name that was probably meant, or ""
    fix:     what to write, or ""
    """

    file: str
    line: int
    column: int
    message: str
    guess: str = ""
    fix: str = ""

    def __str__(self) -> str:
        guess = f"; did you mean {self.guess!r}?" if self.guess else ""
        fix = f"\n    fix: {self.fix}" if self.fix else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{guess}{fix}"


class BundleError(DeclarationError):
    """A bundle of definitions does not validate.  `findings` holds every fault found, in order of place."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings: tuple[Finding, ...] = tuple(
            sorted(findings, key=lambda one: (one.file, one.line, one.column, one.message))
        )
        super().__init__(self.findings)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


class StoreError(MilepostError):
    """A table or topic is damaged, foreign or unreachable.  The operator acts; the process stops and restores."""
