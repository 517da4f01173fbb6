"""Changes: what one catalog adds, removes and re-versions against another, why, and what that touches.

    source ─▶ signal ─▶ metric ─▶ formula ─▶ milestone ─▶ plan ─▶ plan made from it        signal ─▶ reaction
           ─▶ record

A definition is changed when its version is.  It has a history of its own only where cells hold one: a metric keeps its
history exactly when the measures below it keep their versions, whatever else about it is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

from milepost.topology.catalog import Catalog, Measure, Metric, Milestone, Rule
from milepost.topology.definitions import version

What = Literal["source", "identity", "signal", "metric", "record", "milestone", "plan", "reaction"]
How = Literal["added", "changed", "removed"]
Node = tuple[What, str]

ORDER: Final[tuple[What, ...]] = (
    "source", "identity", "signal", "metric", "record", "milestone", "plan", "reaction",
)  # fmt: skip
PROTECTION: Final[Node] = ("identity", "protection")

_FATES: Final[Mapping[tuple[What, How], str]] = {
    ("source", "added"): "its events are taken from here on",
    ("source", "changed"): "holds for events from here on",
    ("source", "removed"): "its events become dead letters (unknown_source)",
    ("identity", "added"): "holds for links from here on",
    ("identity", "changed"): "holds for links from here on",
    ("identity", "removed"): "holds for links from here on",
    ("signal", "added"): "judges events from here on",
    ("signal", "changed"): "judges events from here on; signals made before stay as they are",
    ("signal", "removed"): "makes no more signals; those made before stay",
    ("metric", "added"): "begins empty, with events from here on",
    ("metric", "changed"): "begins anew, with events from here on; as_shown before that still sees the old one",
    ("metric", "removed"): "answers no more; as_shown before that still sees it",
    ("record", "added"): "is written by events from here on",
    ("record", "changed"): "is written by events from here on; what was written stays",
    ("record", "removed"): "is written no more; what was written stays",
    ("milestone", "added"): "is judged by what its metrics hold",
    ("milestone", "changed"): "is judged anew, by what its metrics hold",
    ("milestone", "removed"): "is judged no more",
    ("plan", "added"): "is watched from here on",
    ("plan", "changed"): "is watched on its new terms from here on",
    ("plan", "removed"): "is watched no more",
    ("reaction", "added"): "tells from here on",
    ("reaction", "changed"): "tells from here on",
    ("reaction", "removed"): "tells no more",
}
TOUCHES_MAX: Final = 50
OWN: Final = "its own text"
KEEPS: Final = "keeps its history"
HAS: Final = "has the history of what it is made of"
TAKES_UP: Final = "takes up the history it had under this version; events since then are not in it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One definition that an apply would add, change or remove.

    before, after: its versions (hex), "" where there is none
    because:       what changed it: `its own text`, `signal departed`, …
    touches:       what depends on it, at any remove: the first `TOUCHES_MAX` of `touched`
    history:       what becomes of it, in words
    """

    what: What
    name: str
    how: How
    before: str = ""
    after: str = ""
    because: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    touched: int = 0
    history: str = ""


def compared(before: Catalog | None, after: Catalog, earlier: Iterable[Catalog] = ()) -> tuple[Change, ...]:
    """The changes from one catalog to another, in the order of the line.

    earlier: catalogs that were in force before: a measure of theirs that comes back has cells
    """
    known = {one.version for catalog in earlier for one in catalog.measures}
    return tuple(_Comparison(before, after, known).changes())


def kept(before: Catalog | None, after: Catalog) -> dict[str, int]:
    """How many definitions of each kind have the version they had."""
    old, new = _versions(before), _versions(after)
    counts: dict[str, int] = {}
    for node, at in new.items():
        if node != PROTECTION and old.get(node) == at:
            counts[node[0]] = counts.get(node[0], 0) + 1
    return counts


def lines(changes: Sequence[Change], counts: Mapping[str, int], *, first: bool) -> list[str]:
    """The changes for people, a line or two each.  `first`: nothing was in force before."""
    if not changes:
        return ["nothing would change"]
    if first:
        return [*(_line(one) for one in changes), "  nothing was in force before: all of it holds from here on"]
    width = max(len(_line(one)) for one in changes) + 2
    told = []
    for one in changes:
        because = "" if one.because in ((), (OWN,)) else f"because of {', '.join(one.because)}: "
        told.append(f"{_line(one):{width}}{because}{one.history}")
        if one.touches:
            more = f" and {one.touched - len(one.touches)} more" if one.touched > len(one.touches) else ""
            told.append(f"{'':11}touches {', '.join(one.touches)}{more}")
    if counts:
        held = ", ".join(f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items())
        told.append(f"  {held} keep their versions and their history")
    return told


def _line(one: Change) -> str:
    return f"  {one.how:8} {one.what} {one.name}"


class _Comparison:
    def __init__(self, before: Catalog | None, after: Catalog, known: set[bytes]) -> None:
        self.before, self.after, self.known = before, after, known
        self.old, self.new = _versions(before), _versions(after)
        # As the bundle has them: what is made of something mostly stands below it.
        self.place = {node: i for i, node in enumerate(dict.fromkeys([*self.new, *self.old]))}
        self.below = _merged(_depends(before), _depends(after))
        self.above: dict[Node, list[Node]] = {}
        for node, below in self.below.items():
            for one in below:
                self.above.setdefault(one, []).append(node)

    def changes(self) -> Iterator[Change]:
        for node in sorted(self.place, key=self._rank):
            if self.old.get(node) != self.new.get(node):
                yield self._change(node)

    def _change(self, node: Node) -> Change:
        what, name = node
        how: How = "added" if node not in self.old else "removed" if node not in self.new else "changed"
        touched = self._touched(node)
        return Change(
            what=what,
            name=name,
            how=how,
            before=self.old.get(node, ""),
            after=self.new.get(node, ""),
            because=tuple(self._because(node)) if how == "changed" else (),
            touches=tuple(_told(one) for one in touched[:TOUCHES_MAX]),
            touched=len(touched),
            history=self._history(node, how),
        )

    def _because(self, node: Node) -> Iterator[str]:
        assert self.before is not None
        moved = [one for one in self.below.get(node, ()) if self.old.get(one) != self.new.get(one)]
        if node[0] in ("signal", "record"):
            moved = [one for one in moved if _contracts(self.before, one[1]) != _contracts(self.after, one[1])]
        if not moved or _own(self.before, node) != _own(self.after, node):
            yield OWN
        yield from map(_told, moved)

    def _touched(self, node: Node) -> list[Node]:
        found: dict[Node, None] = {}
        todo = [node]
        while todo:
            for one in self.above.get(todo.pop(), ()):
                if one not in found:
                    found[one] = None
                    todo.append(one)
        return sorted(found, key=self._rank)

    def _rank(self, node: Node) -> tuple[int, int]:
        return ORDER.index(node[0]), self.place.get(node, -1)

    def _history(self, node: Node, how: How) -> str:
        if node[0] == "metric" and how != "removed":
            now = _measures(self.after, node[1])
            if how == "changed" and now <= _measures(self.before, node[1]):
                return KEEPS
            held = {one.version for one in self.before.measures} if self.before is not None else set()
            if now <= held:
                return HAS
            if now <= held | self.known:
                return TAKES_UP
        return _FATES[node[0], how]


def _versions(catalog: Catalog | None) -> dict[Node, str]:
    if catalog is None:
        return {}
    found: dict[Node, str] = {("source", one.name): one.version.hex() for one in catalog.sources.values()}
    guard = catalog.protection
    if guard.unique or guard.limits or guard.blocked or guard.free_mail:
        blocked = sorted((kind, sorted(values)) for kind, values in guard.blocked.items())
        kinds = [sorted(guard.unique), sorted(guard.limits.items()), sorted(guard.free_mail), sorted(guard.domains)]
        found[PROTECTION] = version("protection", kinds, blocked).hex()
    found |= {("signal", one.name): one.version.hex() for one in catalog.rules.values()}
    found |= {("metric", one.name): one.version.hex() for one in catalog.metrics.values()}
    found |= {("record", one.name): one.version.hex() for one in catalog.records.values()}
    found |= {("milestone", one.name): one.version.hex() for one in catalog.milestones.values()}
    found |= {("plan", one.name): one.version.hex() for one in catalog.plans.values()}
    return found | {("reaction", one.name): one.version.hex() for one in catalog.reactions.values()}


def _depends(catalog: Catalog | None) -> dict[Node, list[Node]]:
    """What each definition is made from, one step down."""
    if catalog is None:
        return {}
    by_type: dict[str, list[Node]] = {}
    for source in catalog.sources.values():
        for event_type in source.types:
            by_type.setdefault(event_type, []).append(("source", source.name))
    found: dict[Node, list[Node]] = {("signal", one.name): by_type.get(one.on, []) for one in catalog.rules.values()}
    for record in catalog.records.values():
        found["record", record.name] = [one for write in record.writes for one in by_type.get(write.on, [])]
    for metric in catalog.metrics.values():
        below: list[Node] = [("metric", one) for one in metric.operands]
        found["metric", metric.name] = below + ([("signal", metric.measure.rule)] if metric.measure else [])
    for milestone in catalog.milestones.values():
        found["milestone", milestone.name] = _watched(milestone)
    for plan in catalog.plans.values():
        template = catalog.plans.get(plan.template)
        nodes: list[Node] = [("plan", template.name)] if template is not None else []
        milestones: Iterable[str] = template.milestones if template is not None else ()
        metrics: Iterable[str] = template.metrics if template is not None else ()
        nodes += [("milestone", one) for one in plan.milestones if one not in milestones]
        nodes += [("metric", one) for one in plan.metrics if one not in metrics]
        nodes += [one for name, own in plan.milestones.items() if name not in milestones for one in _watched(own)]
        found["plan", plan.name] = nodes
    for reaction in catalog.reactions.values():
        found["reaction", reaction.name] = [("signal", reaction.signal)] if reaction.signal else []
    return {node: list(dict.fromkeys(below)) for node, below in found.items()}


def dependents(catalog: Catalog, of: Iterable[Node]) -> list[Node]:
    """What is made of these definitions, at any remove, in the order of the line; they themselves are not in it."""
    above: dict[Node, list[Node]] = {}
    for node, below in _depends(catalog).items():
        for one in below:
            above.setdefault(one, []).append(node)
    found: dict[Node, None] = {}
    todo = list(of)
    while todo:
        for one in above.get(todo.pop(), ()):
            if one not in found:
                found[one] = None
                todo.append(one)
    return sorted(found, key=lambda node: (ORDER.index(node[0]), node[1]))


def _merged(one: Mapping[Node, list[Node]], other: Mapping[Node, list[Node]]) -> dict[Node, list[Node]]:
    nodes = dict.fromkeys([*one, *other])
    return {node: list(dict.fromkeys([*one.get(node, []), *other.get(node, [])])) for node in nodes}


def _watched(milestone: Milestone) -> list[Node]:
    return [("metric", one.metric) for one in milestone.actions.values() if one.metric is not None]


def _contracts(catalog: Catalog, source: str) -> object:
    known = catalog.sources.get(source)
    return known and sorted((name, one.canonical) for name, one in known.types.items())


def _measures(catalog: Catalog | None, name: str) -> set[bytes]:
    """The versions of the measures that a metric reads, at any remove."""
    found: set[bytes] = set()
    todo, done = [name], set()
    while todo and catalog is not None:
        metric = catalog.metrics.get(todo.pop())
        if metric is None or metric.name in done:
            continue
        done.add(metric.name)
        todo.extend(metric.operands)
        if metric.measure is not None:
            found.add(metric.measure.version)
    return found


def _own(catalog: Catalog, node: Node) -> object:
    """What a definition says itself, without the versions of what it is made from."""
    what, name = node
    match what:
        case "signal":
            return _rule(catalog.rules[name])
        case "metric":
            return _metric(catalog.metrics[name])
        case "record":
            return catalog.records[name].writes
        case "milestone":
            return _milestone(catalog.milestones[name])
        case "plan":
            return catalog.plans[name].own
        case _:
            return _versions(catalog)[node]


def _rule(rule: Rule) -> object:
    when = rule.when.canonical if rule.when is not None else None
    return rule.on, when, {name: one.canonical for name, one in rule.fields.items()}


def _metric(metric: Metric) -> object:
    formula = metric.formula.canonical if metric.formula is not None else None
    measure = None if metric.measure is None else _measure(metric.measure)
    return metric.unit, metric.aggregate, metric.grain_ms, formula, measure


def _measure(measure: Measure) -> object:
    return replace(measure, version=b"")


def _milestone(milestone: Milestone) -> object:
    return asdict(replace(milestone, version=b""))


def _told(node: Node) -> str:
    return " ".join(node)
