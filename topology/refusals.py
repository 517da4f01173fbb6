"""Refusals: why a question is not answered, what was probably meant, and how to ask it right.

    QuestionError            the asker acts
    ├── BadParameter    422  a value that has no meaning here
    │   ├── UnknownParameter, UnknownDimension, UnknownZone, UnknownBasis
    │   └── GrainTooCoarse   an exact answer needs a finer grain than the metric has; nothing is approximated
    └── NotFound        404  a name that is not known
        └── UnknownMetric, UnknownCompany, UnknownOrganisation, UnknownKey

Each says status (of HTTP), title (one a class), detail (what was expected and what came), guess and fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

from milepost.schemas.errors import MilepostError

NAMES_MAX = 2_000
"""How many names a guess is sought among: a guess is a courtesy and must not cost more than the answer."""


class QuestionError(MilepostError):
    """A question that is not answered.  The asker acts."""

    status = 422
    title = "the question cannot be answered"

    def __init__(self, detail: str, *, guess: str | None = None, fix: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.guess = guess
        self.fix = fix

    @property
    def slug(self) -> str:
        """The class as a short name, for the problem's `type`: `unknown-metric`."""
        name = type(self).__name__
        return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


class BadParameter(QuestionError):
    title = "a parameter has no meaning"


class UnknownParameter(BadParameter):
    title = "unknown parameter"


class UnknownDimension(BadParameter):
    title = "unknown dimension"


class UnknownZone(BadParameter):
    title = "unknown time zone"


class UnknownBasis(BadParameter):
    title = "unknown basis"


class GrainTooCoarse(BadParameter):
    title = "the grain is too coarse for an exact answer"


class NotFound(QuestionError):
    status = 404
    title = "not found"


class UnknownMetric(NotFound):
    title = "unknown metric"


class UnknownCompany(NotFound):
    title = "unknown company"


class UnknownOrganisation(NotFound):
    title = "unknown organisation"


class UnknownPlan(NotFound):
    title = "unknown plan"


class UnknownMilestone(NotFound):
    title = "unknown milestone"


class UnknownSource(NotFound):
    title = "unknown source"


class UnknownDispute(NotFound):
    title = "unknown dispute"


class UnknownRecord(NotFound):
    title = "unknown type of record"


class UnknownKey(NotFound):
    title = "unknown alternate key"


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant: the closest of at most 2,000, or None."""
    if len(name) > 128:
        return None
    known = list(islice(names, NAMES_MAX))
    folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    return folded[found[0]] if found else None
