"""Asked: what a question names (organisation, metric, company, dimensions), found or refused with a guess.

Definitions and identity hold as of the question's moment: now for `latest` and `corrected`, T for `as_shown`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from milepost.topology import bases
from milepost.topology.bases import Moment
from milepost.topology.catalog import Catalog, Measure, Metric
from milepost.topology.companies import Companies
from milepost.topology.graph import Components
from milepost.topology.memberships import Memberships, Stay
from milepost.topology.metrics import VALUE_BYTES_MAX
from milepost.topology.panes import PANE_MS
from milepost.topology.reading import Reader
from milepost.topology.refusals import (
    BadParameter,
    UnknownDimension,
    UnknownMetric,
    UnknownOrganisation,
    closest,
)
from milepost.topology.steps import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.  Without company the whole organisation is meant, without at now."""

    metric: str
    now_ms: int
    org: str | None = None
    company: str | None = None
    at_ms: int | None = None
    basis: str | None = None
    window: str = "all"
    tz: str = "UTC"
    dims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with everything it names found.

    backfilled: the metric had no version at the moment asked for; its first one answers
    parts:      the metric and what it is made of, operands first
    grain_ms:   the coarsest grain of the parts
    components: who is one with whom, as decided by the moment
    root:       the company asked for; None: the whole organisation
    memberships: who belongs to which company
    """

    question: Question
    org: str
    catalog: Catalog
    backfilled: bool
    metric: Metric
    parts: list[Metric]
    grain_ms: int
    moment: Moment
    components: Components
    companies: Companies
    root: bytes | None
    memberships: Memberships
    _attributed: dict[bytes, list[Stay]] = field(default_factory=dict)

    @property
    def stays(self) -> Sequence[Stay]:
        """The stays with the company asked for."""
        return self.attributed(leafwise=False).get(self.root or b"", ())

    def attributed(self, *, leafwise: bool) -> dict[bytes, list[Stay]]:
        """Root company -> the stays with it, as decided by the moment: of the company asked for, or (leafwise) of all.

        A question about the whole organisation needs none: what persons do is in it anyway."""
        if not self.memberships or (self.root is None and not leafwise):
            return {}
        if not self._attributed:
            roots = {self.root} if self.root is not None else set(map(self.components.root, self.memberships.companies))
            for root in roots:
                leaves = self.components.leaves(root)
                self._attributed[root] = self.memberships.stays(leaves, self.components, self.moment.decided_at)
        return self._attributed

    @property
    def measures(self) -> dict[bytes, Measure]:
        """The cell families to read, by version."""
        return {one.measure.version: one.measure for one in self.parts if one.measure is not None}


def asked(reader: Reader, question: Question, components: Components | None = None) -> Steps[Asked]:
    """Find everything that a question names.  Raises QuestionError.

    components: who is one with whom, instead of what is decided (a preview)
    """
    moment = bases.moment(question.basis, question.at_ms, question.now_ms)
    bases.zone(question.tz)
    org = organisation(reader, question.org)
    catalog, backfilled = _catalog(reader, org, question.metric, moment.decided_at)
    metric = catalog.metrics[question.metric]
    for name, text in question.dims.items():
        check_dimension(metric, name)
        if len(text.encode(errors="replace")) > VALUE_BYTES_MAX or not _unicode(text):
            raise BadParameter(f"dim.{name} is no text of at most {VALUE_BYTES_MAX} bytes")
    found = parts(catalog, metric)
    if components is None:
        components = yield from reader.decisions.components(org, moment.decided_at)
    companies = Companies(reader, org, catalog.key_rank)
    root = None
    if question.company is not None:
        root = components.root((yield from companies.leaf(question.company)))
    return Asked(
        question=question,
        org=org,
        catalog=catalog,
        backfilled=backfilled,
        metric=metric,
        parts=found,
        grain_ms=max((one.grain_ms for one in found if one.formula is None), default=PANE_MS),
        moment=moment,
        components=components,
        companies=companies,
        root=root,
        memberships=reader.decisions.memberships(org),
    )


def organisation(reader: Reader, name: str | None) -> str:
    """The organisation asked for: the only one there is, unless named.  Raises UnknownOrganisation."""
    known = sorted(reader.decisions.history)
    if name is None:
        if len(known) == 1:
            return known[0]
        if not known:
            raise UnknownOrganisation("no organisation has definitions yet", fix="milepost apply FOLDER --org NAME")
        raise UnknownOrganisation(
            f"there are {len(known)} organisations: say which", guess=known[0], fix=f"org={known[0]}"
        )
    if name not in known:
        raise UnknownOrganisation(f"no organisation {name[:64]!r} has definitions", guess=closest(name, known))
    return name


def check_dimension(metric: Metric, name: str, extra: Iterable[str] = ()) -> None:
    """Raises UnknownDimension for a name that is neither a dimension of the metric nor one of `extra`."""
    known = (*metric.dimensions, *extra)
    if name not in known:
        raise UnknownDimension(
            f"{metric.name} has no dimension {name[:64]!r}",
            guess=closest(name, known),
            fix=f"one of {', '.join(known)}" if known else None,
        )


def parts(catalog: Catalog, metric: Metric) -> list[Metric]:
    """A metric and all that it is made of, each once, operands before the formula that uses them.

    Without recursion and without repeats: thousand formulas that each name the two before them are a thousand parts."""
    found: dict[str, Metric] = {}
    todo: list[tuple[Metric, bool]] = [(metric, False)]
    while todo:
        one, below_done = todo.pop()
        if one.name in found:
            continue
        if below_done or one.formula is None:
            found[one.name] = one
            continue
        todo.append((one, True))
        todo.extend((catalog.metrics[name], False) for name in one.operands if name not in found)
    return list(found.values())


def _catalog(reader: Reader, org: str, metric: str, c_ms: int | None) -> tuple[Catalog, bool]:
    """The bundle whose metric holds at c, and whether that is before its first version (then the first holds)."""
    history = reader.decisions.history[org]
    now = history[-1].catalog
    able = [applied for applied in history if metric in applied.catalog.metrics]
    if c_ms is None:
        able = [] if metric not in now.metrics else able[-1:]
    if not able:
        guess, fix = closest(metric, now.metrics), "GET /v1/metrics lists them"
        if now.left_out:
            fix += "; some of the definitions in force do not hold in this release, GET /readyz says which"
        raise UnknownMetric(f"{org} has no metric {metric[:64]!r}", guess=guess, fix=fix)
    past = [applied for applied in able if c_ms is None or applied.k_ms <= c_ms]
    return (past[-1].catalog, False) if past else (able[0].catalog, True)


def _unicode(text: str) -> bool:
    """Whether a text has bytes: a lone surrogate has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
