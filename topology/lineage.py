"""Lineage: what of a bundle is made of what, in both directions, and what breaks when a part of it goes.

    source ─▶ type ─▶ contract ─▶ field ─▶ rule ─▶ metric ─▶ metric (formula) ─▶ milestone ─▶ plan, reaction
                                        ├▶ key ─▶ rule, metric (distinct)     ├▶ plan
                                        └▶ record                     rule ─▶ reaction

The nodes are named as the documentation's headings are (`metric-departures`), so that a link, a question and an answer
mean the same by one word.  Which fields a rule reads is taken from its checked expressions (`Expression.paths`), never
from their text.  An edge is *needed* when what stands at its end does not hold without what stands at its beginning:
along those edges goes what breaks.  Along the others numbers may change: a second source of a type goes, and the rule
stays.

No way goes through a key: its kind is held by fields of several sources, and what is made of one is not made of the
others.  So a field that holds a key has edges of its own to the rules whose signals it places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from milepost.schemas.contracts import field_at, paths_of
from milepost.topology.definitions import Catalog, Identity, Milestone, Record, Rule, Source, version

What = Literal[
    "source", "type", "contract", "field", "key", "rule", "metric", "record", "milestone", "plan", "reaction"
]  # fmt: skip
WHATS: Final[tuple[What, ...]] = get_args(What)
"""The kinds of nodes, in the order of the line."""
Senders = Mapping[str, list[Source]]
"""Event type -> the sources that send it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a bundle.

    name: as it is declared; a field's is CONTRACT.path, a key's entity/key
    """

    what: What
    name: str

    @property
    def id(self) -> str:
        """Its name everywhere: in links, in questions, as a heading's anchor."""
        return f"{self.what}-{self.name}"

    def __str__(self) -> str:
        return f"{self.what} {self.name}"


@dataclass(frozen=True, slots=True)
class Edge:
    """`end` is made of `start`.

    how: in which place, as `when`, `field delay`;  needed: without it `end` does not hold
    """

    start: Node
    end: Node
    how: str
    needed: bool = True


class Lineage:
    """The graph of a catalog.  Nodes stand in the order of the line and of the bundle."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.nodes: dict[str, Node] = {}
        self.below: dict[Node, list[Edge]] = {}
        self.above: dict[Node, list[Edge]] = {}
        for node in sorted(_nodes(catalog), key=lambda one: WHATS.index(one.what)):
            self.nodes[node.id] = node
        known = set(self.nodes.values())
        for edge in dict.fromkeys(_edges(catalog)):
            assert {edge.start, edge.end} <= known, edge
            self.above.setdefault(edge.start, []).append(edge)
            self.below.setdefault(edge.end, []).append(edge)
        self._place = {node: place for place, node in enumerate(self.nodes.values())}
        for edges in self.below.values():
            edges.sort(key=lambda one: self._place[one.start])
        for edges in self.above.values():
            edges.sort(key=lambda one: self._place[one.end])

    @property
    def edges(self) -> Iterator[Edge]:
        """Every edge, those to one node together, in the order of the nodes."""
        for node in self.nodes.values():
            yield from self.below.get(node, ())

    def made_of(self, node: Node) -> list[Node]:
        """Everything upstream of a node, at any remove, in order."""
        return self._reached(node, lambda one: [edge.start for edge in self.below.get(one, ())])

    def leads_to(self, node: Node) -> list[Node]:
        """Everything downstream of a node, at any remove, in order."""
        return self._reached(node, lambda one: [edge.end for edge in self.above.get(one, ())])

    def breaks(self, node: Node) -> list[Node]:
        """What does not hold any more when a node goes, at any remove, in order."""
        return self._reached(node, lambda one: [edge.end for edge in self.above.get(one, ()) if edge.needed])

    def path(self, start: Node, end: Node) -> tuple[Node, ...]:
        """A shortest way from one node down to another, both included; () where there is none."""
        before: dict[Node, Node | None] = {start: None}
        todo = deque([start])
        while todo:
            one = todo.popleft()
            if one == end:
                way = [one]
                while (one_before := before[way[-1]]) is not None:
                    way.append(one_before)
                return tuple(reversed(way))
            for edge in self.above.get(one, ()) if one.what != "key" or one == start else ():
                if edge.end not in before:
                    before[edge.end] = one
                    todo.append(edge.end)
        return ()

    def sources_of(self, node: Node) -> list[Source]:
        """The sources that a node is made of, itself included."""
        found = [node, *self.made_of(node)]
        return [self.catalog.sources[one.name] for one in found if one.what == "source"]

    def owners_of(self, node: Node) -> dict[str, list[Source]]:
        """Owner -> the sources of his that a node is made of; "" for sources without one."""
        found: dict[str, list[Source]] = {}
        for source in self.sources_of(node):
            found.setdefault(source.owner, []).append(source)
        return found

    def _reached(self, node: Node, step: Callable[[Node], list[Node]]) -> list[Node]:
        found: set[Node] = set()
        todo = [node]
        while todo:
            for one in step(todo.pop()):
                if one not in found:
                    found.add(one)
                    if one.what != "key":
                        todo.append(one)
        found.discard(node)
        return sorted(found, key=self._place.__getitem__)


def unowned(sources: Iterable[Source]) -> tuple[str, ...]:
    """What to look at first: sources that nobody answers for, and one owner of everything (then a holiday stops it)."""
    known = list(sources)
    said = [f"source {one.name} has no owner: nobody is asked when it falls silent" for one in known if not one.owner]
    owners = {one.owner for one in known}
    if len(known) > 1 and len(owners) == 1 and "" not in owners:
        said.append(f"{owners.pop()} owns all {len(known)} sources: one person on holiday, and nobody answers for any")
    return tuple(said)


def versions_of(catalog: Catalog) -> dict[str, str]:
    """Node id -> its version (hex), of all nodes that have one."""
    found = {Node("source", one.name).id: one.version.hex() for one in catalog.sources.values()}
    for source in catalog.sources.values():
        for contract in source.types.values():
            name = contract.schema_name
            found[Node("contract", name).id] = version("contract", name, contract.canonical).hex()
    groups: Sequence[tuple[What, Iterable[object]]] = (
        ("rule", catalog.rules.values()),
        ("metric", catalog.metrics.values()),
        ("record", catalog.records.values()),
        ("milestone", catalog.milestones.values()),
        ("plan", catalog.plans.values()),
        ("reaction", catalog.reactions.values()),
    )
    for what, some in groups:
        for one in some:
            found[Node(what, one.name).id] = one.version.hex()  # type: ignore[attr-defined]
    return found


def since(history: Sequence[tuple[int, Catalog]]) -> dict[str, int]:
    """Node id -> when the version that is in force now came into force, known time in ms.

    history: (known time, catalog) of the bundles in force, the newest last.  A version that was given up and came back
    counts from its return.
    """
    if not history:
        return {}
    now = versions_of(history[-1][1])
    found = dict.fromkeys(now, history[-1][0])
    same = set(now)
    for k_ms, catalog in reversed(history[:-1]):
        before = versions_of(catalog)
        same = {one for one in same if before.get(one) == now[one]}
        if not same:
            break
        found.update(dict.fromkeys(same, k_ms))
    return found


def field_name(contract: str, path: Sequence[str]) -> str:
    """A field's name as a node: `FlightDeparted.dep_delay`."""
    return ".".join((contract, *path))


def _nodes(catalog: Catalog) -> Iterator[Node]:
    yield from (Node("source", one) for one in catalog.sources)
    contracts = {}
    for source in catalog.sources.values():
        for event_type, contract in source.types.items():
            yield Node("type", event_type)
            contracts[contract.schema_name] = contract
    for name, contract in contracts.items():
        yield Node("contract", name)
        yield from (Node("field", f"{name}{path.removeprefix('data')}") for path in paths_of(contract.type))
    yield from (Node("key", "/".join(kind)) for kind in catalog.key_rank)
    yield from (Node("rule", one) for one in catalog.rules)
    yield from (Node("metric", one) for one in catalog.metrics)
    yield from (Node("record", one) for one in catalog.records)
    yield from (Node("milestone", one) for one in catalog.milestones)
    yield from (Node("plan", one) for one in catalog.plans)
    yield from (Node("reaction", one) for one in catalog.reactions)


def _edges(catalog: Catalog) -> Iterator[Edge]:
    senders = _senders(catalog)
    yield from _of_sources(catalog, senders)
    yield from _of_keys(catalog, senders)
    for rule in catalog.rules.values():
        yield from _of_rule(rule, senders)
    yield from _of_metrics(catalog, senders)
    for record in catalog.records.values():
        yield from _of_record(record, senders)
    yield from _of_plans(catalog)
    yield from _of_reactions(catalog)


def _of_sources(catalog: Catalog, senders: Senders) -> Iterator[Edge]:
    for source in catalog.sources.values():
        for event_type, contract in source.types.items():
            node = Node("contract", contract.schema_name)
            yield Edge(Node("source", source.name), Node("type", event_type), "sends", len(senders[event_type]) == 1)
            yield Edge(Node("type", event_type), node, "is under", False)
            for path, of in paths_of(contract.type).items():
                name = f"{contract.schema_name}{path.removeprefix('data')}"
                yield Edge(node, Node("field", name), "holds")
                if of.kind == "record":
                    for inner in of.fields:
                        yield Edge(Node("field", name), Node("field", f"{name}.{inner}"), "holds")


def _of_keys(catalog: Catalog, senders: Senders) -> Iterator[Edge]:
    """Fields hold keys; keys say whom the signals of a rule are about, and are what `distinct` counts."""
    places: dict[tuple[str, str], list[tuple[Node, bool]]] = {}
    for source in catalog.sources.values():
        for identity in source.identities:
            for contract in source.types.values():
                if field_at(contract.type, identity.path) is not None:
                    field = Node("field", field_name(contract.schema_name, identity.path))
                    places.setdefault((identity.entity, identity.key), []).append((field, identity.required))
    for kind, held in places.items():
        fields = dict(held)
        for field in fields:
            yield Edge(field, Node("key", "/".join(kind)), "holds the key", len(fields) == 1)
    for rule in catalog.rules.values():
        for field, identity in _held(rule.on, senders):
            yield Edge(
                Node("key", f"{identity.entity}/{identity.key}"), Node("rule", rule.name), "is kept under", False
            )
            how = f"{'required ' if identity.required else ''}key {identity.key}"
            needed = identity.required and len(senders[rule.on]) == 1
            yield Edge(field, Node("rule", rule.name), how, needed)


def _held(on: str, senders: Senders) -> Iterator[tuple[Node, Identity]]:
    """The fields of a type's events that hold keys."""
    for source in senders.get(on, ()):
        contract = source.types[on]
        for identity in source.identities:
            if field_at(contract.type, identity.path) is not None:
                yield Node("field", field_name(contract.schema_name, identity.path)), identity


def _of_rule(rule: Rule, senders: Senders) -> Iterator[Edge]:
    node = Node("rule", rule.name)
    yield Edge(Node("type", rule.on), node, "on")
    read = {} if rule.when is None else {"when": rule.when}
    read |= {f"field {name}": one for name, one in rule.fields.items()}
    contracts = {source.types[rule.on].schema_name for source in senders[rule.on]}
    for source in senders[rule.on]:
        contract = source.types[rule.on]
        yield Edge(Node("contract", contract.schema_name), node, "on", len(contracts) == 1)
        for how, expression in read.items():
            for path in expression.paths:
                names = path.split(".")
                if names[0] == "data":
                    yield Edge(Node("field", field_name(contract.schema_name, names[1:])), node, how)


def _of_metrics(catalog: Catalog, senders: Senders) -> Iterator[Edge]:
    for metric in catalog.metrics.values():
        node = Node("metric", metric.name)
        yield from (Edge(Node("metric", one), node, "formula") for one in metric.operands)
        if metric.measure is None:
            continue
        measure = metric.measure
        how = f"{metric.aggregate} of {measure.field}" if measure.field else str(metric.aggregate)
        yield Edge(Node("rule", measure.rule), node, how)
        if measure.entity is None:
            continue
        held = [one for one in _held(catalog.rules[measure.rule].on, senders) if one[1].entity == measure.entity]
        for field, identity in held:
            yield Edge(field, node, f"distinct {measure.entity}", len(held) == 1)
            only = len({other.key for _, other in held}) == 1
            yield Edge(Node("key", f"{identity.entity}/{identity.key}"), node, f"distinct {measure.entity}", only)


def _of_record(record: Record, senders: Senders) -> Iterator[Edge]:
    node = Node("record", record.name)
    for write in record.writes:
        yield Edge(Node("type", write.on), node, write.op)
        read = {"id": write.id} | {f"field {one}": path for one, path in write.fields.items()}
        for source in senders.get(write.on, ()):
            contract = source.types[write.on]
            yield Edge(Node("contract", contract.schema_name), node, write.op)
            for how, path in read.items():
                yield Edge(Node("field", field_name(contract.schema_name, path)), node, how)


def _of_plans(catalog: Catalog) -> Iterator[Edge]:
    for milestone in catalog.milestones.values():
        yield from _watched(milestone, Node("milestone", milestone.name))
    for plan in catalog.plans.values():
        node = Node("plan", plan.name)
        if plan.template:
            yield Edge(Node("plan", plan.template), node, "template")
        for name, own in plan.milestones.items():
            yield Edge(Node("milestone", name), node, "milestone")
            if own != catalog.milestones.get(name):  # changed here: what it watches may be another metric
                yield from _watched(own, node)
        yield from (Edge(Node("metric", one), node, "shows") for one in plan.metrics)


def _watched(milestone: Milestone, node: Node) -> Iterator[Edge]:
    for action in milestone.actions.values():
        if action.metric is not None:
            yield Edge(Node("metric", action.metric), node, f"action {action.name}")


def _of_reactions(catalog: Catalog) -> Iterator[Edge]:
    for reaction in catalog.reactions.values():
        node = Node("reaction", reaction.name)
        if reaction.signal is not None and reaction.signal in catalog.rules:
            yield Edge(Node("rule", reaction.signal), node, "on")
        if reaction.state is not None:
            told = dict.fromkeys(name for plan in catalog.plans.values() for name in plan.milestones)
            yield from (Edge(Node("milestone", one), node, f"on {reaction.state}", False) for one in told)


def _senders(catalog: Catalog) -> Senders:
    """Event type -> the sources that send it."""
    found: dict[str, list[Source]] = {}
    for source in catalog.sources.values():
        for event_type in source.types:
            found.setdefault(event_type, []).append(source)
    return found
