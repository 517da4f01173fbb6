"""Manual, its contents: every part of a bundle under a heading, with what people ask of it.

Of each: what it means, who answers for it and on which way, what it is made of and what is made of it, what breaks if
it goes, its version; with `Live` also since when that holds, how fresh its sources are, and events of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from milepost.schemas.contracts import Contract, paths_of
from milepost.topology import manual_line, samples
from milepost.topology import manual_words as words
from milepost.topology.definitions import Catalog, Source
from milepost.topology.lineage import Lineage, Node, What, unowned, versions_of
from milepost.topology.manual import (
    Code,
    Entry,
    Example,
    Link,
    Live,
    Manual,
    Row,
    Section,
    Table,
    Text,
    joined,
    link,
    named,
    owner_line,
    text,
)

ABOUT: Final = (
    "What the events of this organisation mean: where they come from, who answers for them, what is made of them, and "
    "what breaks if a part goes.  Generated from the definitions."
)
Facts = list[tuple[str, Text]]


def manual(catalog: Catalog, live: Live | None = None) -> Manual:
    """The manual of a catalog; `live`: what is so now, for the worker's page."""
    return _Writer(catalog, live).manual()


class _Writer:
    def __init__(self, catalog: Catalog, live: Live | None) -> None:
        self.catalog, self.live = catalog, live
        self.lineage = Lineage(catalog)
        self.versions = versions_of(catalog)
        self.contracts = {
            one.schema_name: one for source in catalog.sources.values() for one in source.types.values()
        }  # fmt: skip

    def manual(self) -> Manual:
        about: Text = (ABOUT,)
        title = "Definitions"
        if self.live is not None:
            title = f"Definitions of {self.live.org}"
            now = f"  Bundle {self.live.bundle}, as of {words.moment(self.live.now_ms)}."
            about = text(ABOUT, now)
        sections = (
            self._sources(), self._types(), self._contracts(), self._keys(), self._rules(), self._metrics(),
            self._records(), self._milestones(), self._plans(), self._reactions(),
        )  # fmt: skip
        shown = tuple(one for one in sections if one.entries or (one.table is not None and one.table.rows))
        if self.live is not None:
            shown += (manual_line.section(),)
        return Manual(title=title, about=about, first=tuple(self._first()), sections=shown)

    def _first(self) -> Iterator[Text]:
        """What to look at first: owners that are missing, sources that are silent, what nothing is made of."""
        yield from ((one,) for one in unowned(self.catalog.sources.values()))
        for finding in self.catalog.left_out:
            yield (f"left out, because it does not hold in this release: {finding}",)
        for source in self.catalog.sources.values():
            if self._stale(source):
                yield text("source ", link(Node("source", source.name)), " is stale: ", self._heard(source))
        read = {one.on for one in self.catalog.rules.values()} | set(self.catalog.writes)
        for node in self._nodes("type"):
            holds = {
                identity.key
                for source in self.catalog.sources.values()
                if node.name in source.types
                for identity in source.identities
            }
            if node.name not in read and not holds:
                yield text("nothing is made of ", link(node))

    # --- sections, in the order of the line

    def _sources(self) -> Section:
        entries = tuple(self._source(one) for one in self.catalog.sources.values())
        return Section(anchor="sources", title="Sources", about="Systems that send events.", entries=entries)

    def _source(self, source: Source) -> Entry:
        node = Node("source", source.name)
        types = joined((link(Node("type", one)) for one in source.types), ", ", " and ")
        facts: Facts = [("Owner", (source.owner,) if source.owner else ("nobody: name one under ", Code("owner")))]
        rows = []
        for identity in source.identities:
            key = Node("key", f"{identity.entity}/{identity.key}")
            traits = [one for one in ("required", "label", "unique") if getattr(identity, one)]
            rows.append(
                text(link(key), " from ", Code(_dotted(identity.path)), f" ({', '.join(traits)})"
                if traits else "")
            )  # fmt: skip
        facts.append(("Says whom events are about by", joined(rows, "; ")))
        if source.pii:
            facts.append(("Personal data", joined(Code(_dotted(one)) for one in source.pii)))
        if said := words.promises(source.expect):
            facts.append(("Promises", (said,)))
        facts.append(("Takes events", (f"up to {words.duration(source.future_skew_ms)} ahead of the log’s clock",)))
        contracts = dict.fromkeys(one.schema_name for one in source.types.values())
        facts.append(("Examples", joined(link(Node("contract", one)) for one in contracts)))
        return self._entry(node, "Source", text("Sends ", types, "."), facts, ("Owner", "Made of"))

    def _types(self) -> Section:
        rows = []
        for node in self._nodes("type"):
            senders = [one for one in self.catalog.sources.values() if node.name in one.types]
            contracts = dict.fromkeys(one.types[node.name].schema_name for one in senders)
            readers = [edge.end for edge in self.lineage.above.get(node, ()) if edge.end.what in ("rule", "record")]
            cells: tuple[Text, ...] = (
                (Code(node.name),),
                joined(link(Node("source", one.name)) for one in senders),
                joined(link(Node("contract", one)) for one in contracts),
                named(list(dict.fromkeys(readers))),
            )
            rows.append(Row(anchor=node.id, cells=cells))
        table = Table(head=("Type", "Sent by", "Contract", "Read by"), rows=tuple(rows))
        return Section(anchor="types", title="Event types", about="What happens, and who reads of it.", table=table)

    def _contracts(self) -> Section:
        entries = tuple(self._contract(one) for one in self.contracts.values())
        about = "What the data of an event holds.  A field that goes takes with it what its row says."
        return Section(anchor="contracts", title="Contracts", about=about, entries=entries)

    def _contract(self, contract: Contract) -> Entry:
        node = Node("contract", contract.schema_name)
        of = [
            (source, name)
            for source in self.catalog.sources.values()
            for name, one in source.types.items()
            if one.schema_name == contract.schema_name
        ]
        types = joined(link(Node("type", name)) for name in dict.fromkeys(name for _, name in of))
        secret = {path for source, _ in of for path in source.pii}
        rows = []
        for path, known in paths_of(contract.type).items():
            names = tuple(path.split(".")[1:])
            field = Node("field", ".".join((contract.schema_name, *names)))
            personal = any(names[: len(one)] == one for one in secret)
            said = "; ".join(one for one in (known.doc, "personal data" if personal else "") if one)
            readers = dict.fromkeys(edge.end for edge in self.lineage.above.get(field, ()) if edge.end.what != "field")
            cells: tuple[Text, ...] = (
                (Code(path),),
                (words.kind(known),),
                (said,),
                named(list(readers)),
                named([one for one in self.lineage.breaks(field) if one.what != "field"]),
            )
            rows.append(Row(anchor=field.id, cells=cells))
        table = Table(head=("Field", "Is", "Means", "Read by", "Breaks if it goes"), rows=tuple(rows))
        examples = tuple(self._example(name, contract, source) for source, name in of[:1])
        meaning = text(contract.type.doc, " " if contract.type.doc else "", "The data of ", types, " events.")
        return self._entry(node, "Contract", meaning, [], table=table, examples=examples)

    def _keys(self) -> Section:
        rows = []
        for rank, (entity, key) in enumerate(self.catalog.key_rank, start=1):
            node = Node("key", f"{entity}/{key}")
            places = [
                text(
                    link(Node("source", source.name)), ": ", Code(_dotted(one.path)), " of ",
                    joined(link(Node("contract", name)) for name in self._holding(source, one.path)),
                )
                for source in self.catalog.sources.values()
                for one in source.identities
                if (one.entity, one.key) == (entity, key)
            ]  # fmt: skip
            users = dict.fromkeys(edge.end for edge in self.lineage.above.get(node, ()))
            traits = self._traits(entity, key)
            cells: tuple[Text, ...] = (
                (Code(key),), (entity,), (str(rank),), joined(places, "; "), (traits,), named(list(users))
            )  # fmt: skip
            rows.append(Row(anchor=node.id, cells=cells))
        head = ("Kind", "Of", "Rank", "Comes from", "Is", "Used by")
        about = "Whom events are about: kinds of keys, the higher rank first, and the fields that hold them."
        return Section(anchor="keys", title="Keys", about=about, table=Table(head=head, rows=tuple(rows)))

    def _holding(self, source: Source, path: tuple[str, ...]) -> list[str]:
        name = _dotted(path)
        found = (one for one in source.types.values() if name in paths_of(one.type))
        return list(dict.fromkeys(one.schema_name for one in found))

    def _traits(self, entity: str, key: str) -> str:
        guard, some = self.catalog.protection, []
        declared = [one for source in self.catalog.sources.values() for one in source.identities]
        if any(one.label for one in declared if (one.entity, one.key) == (entity, key)):
            some.append("display name")
        if (entity, key) in guard.unique:
            some.append("two values never join")
        if (entity, key) in guard.limits:
            some.append(f"at most {guard.limits[entity, key]:,} together")
        if (entity, key) in guard.free_mail:
            some.append("free mail is nobody’s")
        if guard.blocked.get((entity, key)):
            some.append(f"{len(guard.blocked[entity, key]):,} values mean nothing")
        return ", ".join(some)

    def _rules(self) -> Section:
        entries = []
        for rule in self.catalog.rules.values():
            rows = tuple(
                Row(cells=((Code(name),), words.expression(one), self._read(rule.on, one.paths)))
                for name, one in rule.fields.items()
            )
            table = Table(head=("Field", "Is", "Read from"), rows=rows) if rows else None
            facts: Facts = [("On", (link(Node("type", rule.on)),))]
            if rule.when is not None:
                facts.append(
                    ("When", text(words.expression(rule.when), ", read from ", self._read(rule.on, rule.when.paths)))
                )
            senders = [one for one in self.catalog.sources.values() if rule.on in one.types]
            given = self._given(rule.on)
            made = samples.signal(rule, given, senders[0].types[rule.on]) if senders else None
            examples: tuple[Example, ...] = ()
            if made is not None:
                said = text(
                    "The signal of the example of ", link(Node("contract", senders[0].types[rule.on].schema_name)), "."
                )
                examples = (Example(about=said, json=made),)
            entries.append(
                self._entry(Node("rule", rule.name), "Rule", words.of_rule(rule), facts, table=table, examples=examples)
            )
        about = "Which events become signals: events with a meaning for the business."
        return Section(anchor="rules", title="Rules", about=about, entries=tuple(entries))

    def _read(self, on: str, paths: Iterable[str]) -> Text:
        """What an expression reads, with links to the fields."""
        contracts = dict.fromkeys(
            source.types[on].schema_name for source in self.catalog.sources.values() if on in source.types
        )
        found: list[Text | Link | Code] = []
        for path in paths:
            if not path.startswith("data."):
                found.append(Code(path))
                continue
            found += [Link(path, f"field-{name}.{path.removeprefix('data.')}") for name in contracts]
        return joined(found) if found else ("nothing",)

    def _metrics(self) -> Section:
        entries = []
        for metric in self.catalog.metrics.values():
            facts: Facts = [("Unit", (metric.unit or "none",))]
            dimensions: Text = joined(map(Code, metric.dimensions)) if metric.dimensions else ("none",)
            facts.append(("Dimensions", dimensions))
            if metric.formula is not None:
                facts.append(("Formula", (Code(metric.formula.text.strip()),)))
            if metric.measure is not None and metric.measure.field is not None:
                rule = self.catalog.rules[metric.measure.rule]
                facts.append(("Value", self._read(rule.on, rule.fields[metric.measure.field].paths)))
            facts.append(("Finest step", (words.duration(metric.grain_ms),)))
            node = Node("metric", metric.name)
            entries.append(
                self._entry(node, "Metric", words.of_metric(metric), facts, page=f"/?metric={metric.name}")
            )  # fmt: skip
        about = "Numbers of signals, for a company or all, at any point in time."
        return Section(anchor="metrics", title="Metrics", about=about, entries=tuple(entries))

    def _records(self) -> Section:
        entries = []
        for record in self.catalog.records.values():
            rows = [
                Row(cells=((Code(name),), self._read(write.on, (_dotted(path),)), (link(Node("type", write.on)),)))
                for write in record.writes
                for name, path in write.fields.items()
            ]
            table = Table(head=("Field", "Read from", "Of"), rows=tuple(rows)) if rows else None
            meaning = joined(map(words.of_write, record.writes), " ")
            entries.append(self._entry(Node("record", record.name), "Record", meaning, [], table=table))
        about = "What events say of things, as it is and as it was."
        return Section(anchor="records", title="Records", about=about, entries=tuple(entries))

    def _milestones(self) -> Section:
        entries = []
        for milestone in self.catalog.milestones.values():
            rows = tuple(
                Row(cells=((Code(one.name),), words.of_action(one), (f"{one.weight:g}",)))
                for one in milestone.actions.values()
            )
            table = Table(head=("Decided by", "Holds when", "Weight"), rows=rows)
            plans = [Node("plan", one.name) for one in self.catalog.plans.values() if milestone.name in one.milestones]
            facts: Facts = [("In plans", joined(map(link, plans)) if plans else ("none",))]
            changed = [
                one
                for one in self.catalog.plans.values()
                if one.milestones.get(milestone.name) not in (None, milestone)
            ]
            for plan in changed:
                own = plan.milestones[milestone.name]
                actions = joined((words.of_action(one) for one in own.actions.values()), "; ")
                facts.append((f"In {plan.name}", text(words.of_milestone(own), " ", actions)))
            node = Node("milestone", milestone.name)
            entries.append(self._entry(node, "Milestone", words.of_milestone(milestone), facts, table=table))
        about = "Outcomes by a date."
        return Section(anchor="milestones", title="Milestones", about=about, entries=tuple(entries))

    def _plans(self) -> Section:
        entries = []
        for plan in self.catalog.plans.values():
            facts: Facts = []
            if plan.template:
                facts.append(("Made from", (link(Node("plan", plan.template)),)))
            facts.append(("Milestones", joined(link(Node("milestone", one)) for one in plan.milestones)))
            if plan.metrics:
                facts.append(("Metrics", joined(link(Node("metric", one)) for one in plan.metrics)))
            entries.append(self._entry(Node("plan", plan.name), "Plan", words.of_plan(plan), facts))
        about = "Milestones that two organisations watch together."
        return Section(anchor="plans", title="Plans", about=about, entries=tuple(entries))

    def _reactions(self) -> Section:
        entries = [
            self._entry(Node("reaction", one.name), "Reaction", words.of_reaction(one), [])
            for one in self.catalog.reactions.values()
        ]
        return Section(anchor="reactions", title="Reactions", about="Whom to tell.", entries=tuple(entries))

    # --- what all entries have

    def _entry(
        self,
        node: Node,
        title: str,
        meaning: Text,
        facts: Facts,
        without: tuple[str, ...] = (),
        *,
        table: Table | None = None,
        examples: tuple[Example, ...] = (),
        page: str = "",
    ) -> Entry:
        below = [one for one in self.lineage.made_of(node) if one.what != "key"]
        above = [edge.end for edge in self.lineage.above.get(node, ())]
        if node.what == "contract":  # what reads a field reads the contract
            above += [edge.end for one in above if one.what == "field" for edge in self.lineage.above.get(one, ())]
        above = [one for one in self._ordered(above) if one.what != "field"]
        breaks = [one for one in self.lineage.breaks(node) if one.what != "field"]
        stays = [
            one for one in self.lineage.leads_to(node) if one not in breaks and one.what not in ("field", "contract")
        ]
        usual: Facts = [
            ("Owner", owner_line(self.lineage, node)),
            ("Made of", named(below, "nothing but the events themselves")),
            ("Leads to", named(above)),
            ("Breaks if it goes", named(breaks)),
            *([("Stands without it, and says otherwise", named(stays))] if stays else []),
            *self._fresh(node),
            *self._version(node),
        ]
        return Entry(
            anchor=node.id,
            title=f"{title} {node.name}",
            meaning=meaning,
            facts=(*facts, *(one for one in usual if one[0] not in without)),
            table=table,
            examples=examples,
            page=page,
        )

    def _ordered(self, nodes: Iterable[Node]) -> list[Node]:
        some = set(nodes)
        return [one for one in self.lineage.nodes.values() if one in some]

    def _version(self, node: Node) -> Facts:
        version = self.versions.get(node.id)
        if version is None:
            return []
        since = "" if self.live is None or node.id not in self.live.since else words.moment(self.live.since[node.id])
        return [("Version", text(Code(version), f", in force since {since}" if since else ""))]

    def _fresh(self, node: Node) -> Facts:
        if self.live is None:
            return []
        sources = self.lineage.sources_of(node)
        said = []
        for one in sources:
            whose = text(link(Node("source", one.name)), ": ") if node.what != "source" else ()
            said.append(text(whose, "stale: " if self._stale(one) else "", self._heard(one)))
        return [("Freshness now", joined(said, "; "))] if said else []

    def _heard(self, source: Source) -> str:
        assert self.live is not None
        heard = self.live.heard.get(source.name)
        if heard is None:
            return "nothing has come yet"
        t_ms, k_ms = heard
        return f"the newest event came {words.ago(self.live.now_ms - k_ms)}, events reach {words.moment(t_ms)}"

    def _stale(self, source: Source) -> bool:
        """Whether a source has been silent for longer than it promises, since it first sent under these definitions.

        An import of the past says nothing of what comes: the newest event must be known later than its definition."""
        limit_ms = source.expect.freshness_ms
        if self.live is None or limit_ms is None or source.name not in self.live.heard:
            return False
        k_ms = self.live.heard[source.name][1]
        awaited = k_ms > self.live.defined.get(source.name, k_ms)
        return awaited and self.live.now_ms - k_ms > limit_ms

    def _example(self, event_type: str, contract: Contract, source: Source) -> Example:
        seen = self.live.examples.get(event_type) if self.live is not None else None
        if seen is not None:
            said = text("From the log, at ", Code(seen.position), "; personal data is masked.")
            return Example(about=said, json=samples.written(seen.event))
        return Example(
            about=text("Made from the contract; every value is a sample."),
            json=samples.written(samples.event(event_type, contract, source)),
        )

    def _given(self, event_type: str) -> Mapping[str, Any] | None:
        """The data of the real example that the page shows, if there is one."""
        seen = self.live.examples.get(event_type) if self.live is not None else None
        return None if seen is None else seen.event

    def _nodes(self, what: What) -> list[Node]:
        return [one for one in self.lineage.nodes.values() if one.what == what]


def _dotted(path: Iterable[str]) -> str:
    return ".".join(("data", *path))
