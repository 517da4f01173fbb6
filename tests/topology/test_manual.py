"""Manual: every definition has a heading, every link leads to one, and nothing that is written breaks the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from milepost.schemas.records import Envelope
from milepost.topology import fates, line, samples
from milepost.topology.bundle_picture import DRAWN, NODES_MAX, mermaid
from milepost.topology.catalog import Catalog, load_bundle
from milepost.topology.lineage import Lineage
from milepost.topology.manual import NAMED_MAX, Live, Manual, Text, named
from milepost.topology.manual_drawing import svg
from milepost.topology.manual_entries import manual
from milepost.topology.manual_html import html
from milepost.topology.manual_markdown import markdown
from tests.support import documented, small
from tests.topology.test_lineage import BUNDLES

NOW = small.T0
UNSEEN = {"field", "key", "type"}
"""Kinds of nodes that are rows of tables, not headings."""


class Page(HTMLParser):
    """Anchors, links, headings and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))

    def handle_data(self, data: str) -> None:
        self.text += data


def live(catalog: Catalog) -> Live:
    heard = dict.fromkeys(catalog.sources, (NOW - 60_000, NOW - 30_000))
    ids = Lineage(catalog).nodes
    return Live(org="acme", bundle="5f0c", now_ms=NOW, heard=heard, since=dict.fromkeys(ids, NOW - 86_400_000))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_definition_has_a_heading_and_every_link_an_anchor(bundle: str) -> None:
    """In Markdown and in HTML: anchors are unique, and they are the nodes of the lineage."""
    catalog = load_bundle(BUNDLES[bundle])
    nodes = Lineage(catalog).nodes
    text = markdown(manual(catalog), mermaid(catalog))
    anchors = re.findall(r'<a id="([^"]+)">', text)
    assert len(set(anchors)) == len(anchors) and set(nodes) <= set(anchors)
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert links and set(links) <= set(anchors)
    page = Page(html(manual(catalog, live(catalog))))
    assert len(set(page.ids)) == len(page.ids) and set(nodes) <= set(page.ids)
    inside = {one[1:] for one in page.links if one.startswith("#")}
    assert inside <= set(page.ids) and inside >= {id for id, one in nodes.items() if one.what not in UNSEEN}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_of_each_part_it_says_what_people_ask(bundle: str) -> None:
    """Owner, what it is made of and leads to, what breaks if it goes, its version; live also freshness and since when."""
    catalog = load_bundle(BUNDLES[bundle])
    for found, also in ((manual(catalog), set()), (manual(catalog, live(catalog)), {"Freshness now"})):
        for entry in (one for section in found.sections if section.anchor != "line" for one in section.entries):
            labels = {label for label, _ in entry.facts}
            wanted = {"Owner", "Leads to", "Breaks if it goes", "Version"} | also
            if entry.anchor.startswith("metric-"):
                wanted |= {"Unit", "Dimensions"}
            assert wanted <= labels, entry.anchor
            assert entry.meaning and said(entry.meaning).endswith((".", ".  ")), entry.anchor
            since = next(text for label, text in entry.facts if label == "Version")
            assert ("in force since" in said(since)) == bool(also)


def said(text: Text) -> str:
    return "".join(one if isinstance(one, str) else one.text for one in text)


def test_the_page_needs_no_script_and_no_style_of_its_own() -> None:
    """What the content security policy would refuse is not there, and whatever a definition says stays text."""
    catalog = load_bundle(documented.FILES)
    page = Page(html(manual(catalog, live(catalog))))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "style", "b", "i", "iframe", "object", "form"}
    assert not {name for _, given in page.tags for name in given if name.startswith("on") or name == "style"}
    assert all(one.startswith(("#", "/")) for one in page.links)
    assert "app <b>team</b> | [x](y) _z_ `q`" in page.text and "As in the CRM | <i>" in page.text


def test_markdown_keeps_what_is_written_as_text() -> None:
    """Bars, brackets and back quotes in owners, docs and expressions end no cell and make no link."""
    text = markdown(manual(load_bundle(documented.FILES)))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    widths = {len(re.split(r"(?<!\\)\|", line)) - 2 for line in rows}
    assert widths <= {3, 4, 5, 6}
    (row,) = (line for line in rows if "As in the CRM" in line)
    assert len(re.split(r"(?<!\\)\|", row)) - 2 == 5 and r"\<i\>" in row
    assert r"app \<b\>team\</b\> \| \[x\](y) \_z\_ \`q\`" in text


def test_the_page_follows_from_the_bundle() -> None:
    """Written twice it is the same; a comment in the bundle changes nothing, a definition does."""
    first = markdown(manual(load_bundle(documented.FILES)))
    main = documented.FILES["milepost.yaml"]
    commented = load_bundle({**documented.FILES, "milepost.yaml": b"# a comment\n" + main})
    assert markdown(manual(commented)) == first
    other = load_bundle({**documented.FILES, "milepost.yaml": main.replace(b"> 60.0", b"> 61.0")})
    assert markdown(manual(other)) != first
    assert "in force since" not in first and "Freshness" not in first


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_sample_is_an_event_that_its_contract_takes(bundle: str) -> None:
    """Every example that is made from a contract passes it, and a rule's example is what the rule makes of it."""
    catalog = load_bundle(BUNDLES[bundle])
    for source in catalog.sources.values():
        for event_type, contract in source.types.items():
            data = samples.event(event_type, contract, source)["data"]
            assert contract.check(data).keys() == contract.type.fields.keys()
            for rule in catalog.rules_by_type.get(event_type, ()):
                made = samples.signal(rule, None, contract)
                assert made is None or json.loads(made).keys() == {"signal", *rule.fields}


def test_a_real_event_is_shown_without_persons() -> None:
    """Personal data and people's keys are masked, at any depth; what no contract declares, and the id, are left out."""
    catalog = load_bundle(documented.FILES)
    source = catalog.sources["app"]
    data = {
        "company": "orchard",
        "email": f"{documented.CANARY}@example.org",
        "phone": documented.CANARY,
        "minutes": 3,
        "tags": ["x" * 500] * 20,
        "address": {"city": "Ulm", "street": documented.CANARY},
        "undeclared": documented.CANARY,
    }
    event = Envelope(
        org="acme", source="app", id=documented.CANARY, type="visit", time="2023-11-15T00:00:00Z", data=data
    )
    shown = samples.masked(event, source.types["visit"], source)
    assert shown is not None and documented.CANARY not in json.dumps(shown)
    assert shown["data"]["address"] == {"city": "Ulm", "street": samples.MASK}
    assert (shown["data"]["company"], shown["data"]["minutes"]) == ("orchard", 3.0)
    assert len(shown["data"]["tags"]) == samples.LISTED_MAX and len(shown["data"]["tags"][0]) == samples.TEXT_MAX + 1
    broken = Envelope(org="acme", source="app", id="1", type="visit", time="2023-11-15T00:00:00Z", data={})
    assert samples.masked(broken, source.types["visit"], source) is None


def test_a_stale_source_stands_at_the_top() -> None:
    """One that promised more; not one whose events were all known before it was defined, nor one that promised nothing."""
    catalog = load_bundle(documented.FILES)

    def first(k_ms: int, defined_ms: int) -> str:
        now = Live(
            org="acme", bundle="5f0c", now_ms=NOW, defined=dict.fromkeys(catalog.sources, defined_ms),
            heard=dict.fromkeys(catalog.sources, (NOW - 3_600_000, k_ms)),
        )  # fmt: skip
        return " ".join(said(one) for one in manual(catalog, now).first)

    minute = 60_000
    assert "source app is stale: the newest event came 16 minutes ago" in first(NOW - 16 * minute, 0)
    assert "source app is stale" not in first(NOW - 14 * minute, 0)
    assert "source app is stale" not in first(NOW - 16 * minute, NOW - 10 * minute)
    assert "source shop is stale" not in first(NOW - 160 * minute, 0)


def test_of_a_webhook_only_the_host_is_shown() -> None:
    """The rest of its address may be a secret."""
    text = markdown(manual(load_bundle(documented.FILES)))
    assert "hooks.example.org" in text and "secret-path" not in text


def test_a_plan_that_changes_a_milestone_says_so() -> None:
    """The milestone's entry names the plan and what decides it there."""
    text = markdown(manual(load_bundle(documented.FILES)))
    (line,) = (one for one in text.splitlines() if one.startswith("* **In growth:**"))
    assert "[people](#metric-people) is at least 3" in line and "somebody ticks: the review was held" in line


def test_long_lists_say_how_many_more_there_are() -> None:
    """A list of names has a bound."""
    fields = "".join(f"  m{i}: {{from: visited, aggregate: count, unit: u{i}}}\n" for i in range(80))
    text = small.FILES["milepost.yaml"].decode().replace("metrics:\n", f"metrics:\n{fields}")
    catalog = load_bundle({**small.FILES, "milepost.yaml": text.encode()})
    nodes = [one for one in Lineage(catalog).nodes.values() if one.what == "metric"]
    shown = said(named(nodes))
    assert shown.startswith(f"{len(nodes)} metrics: ") and shown.endswith(f"; {len(nodes) - NAMED_MAX} more")
    assert shown.count(",") == NAMED_MAX - 1


def test_every_stage_and_fate_of_the_line_is_described() -> None:
    """On the worker's page alone: each leg and stage has an anchor, and each fate is named where it is decided."""
    catalog = load_bundle(small.FILES)
    page = Page(html(manual(catalog, live(catalog))))
    for leg in (*line.LEGS, *line.ASKING):
        assert f"leg-{leg.name}" in page.ids and all(f"stage-{one}" in page.ids for one in leg.stages)
    for names in fates.FATES.values():
        assert all(name.partition(":")[2] in page.text if ":" in name else name in page.text for name in names)
    assert "stage-" not in markdown(manual(catalog))


def test_the_picture_names_every_definition_or_only_kinds() -> None:
    """A bundle that is too large to be read is drawn by its kinds."""
    catalog = load_bundle(BUNDLES["demo"])
    drawn = mermaid(catalog)
    assert drawn.startswith("flowchart LR\n") and all(f'"{name}"' in drawn for name in catalog.metrics)
    arrows = re.findall(r"^  (n\d+) --> (n\d+)$", drawn, re.MULTILINE)
    assert {one for pair in arrows for one in pair} <= set(re.findall(r"^  (n\d+)\W", drawn, re.MULTILINE))
    many = "".join(f"  m{i}: {{from: visited, aggregate: count, unit: u{i}}}\n" for i in range(NODES_MAX))
    text = small.FILES["milepost.yaml"].decode().replace("metrics:\n", f"metrics:\n{many}")
    kinds = mermaid(load_bundle({**small.FILES, "milepost.yaml": text.encode()}))
    assert svg(Lineage(load_bundle({**small.FILES, "milepost.yaml": text.encode()}))) == ""
    assert 'source["1 source"]' in kinds and "rule --> metric" in kinds and "m17" not in kinds


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_drawing_links_to_every_definition(bundle: str) -> None:
    """Each box leads to a heading, no two lie over one another, and lines run from left to right."""
    catalog = load_bundle(BUNDLES[bundle])
    lineage = Lineage(catalog)
    drawn = svg(lineage)
    page = Page(drawn)
    wanted = {f"#{one.id}" for one in lineage.nodes.values() if one.what in DRAWN}
    assert set(page.links) == wanted and len(page.links) == len(wanted)
    boxes = [(given["x"], given["y"]) for tag, given in page.tags if tag == "rect"]
    assert len(set(boxes)) == len(boxes) == len(wanted)
    lines = re.findall(r'd="M(\d+) \d+C\d+ \d+ \d+ \d+ (\d+) \d+"', drawn)
    assert lines and all(int(start) < int(end) for start, end in lines)
    assert not {name for _, given in page.tags for name in given if name == "style" or name.startswith("on")}


def test_what_was_left_out_is_said_first() -> None:
    """Of a bundle of the log that this release refuses in part."""
    from milepost.topology.lenient import lenient_bundle

    main = documented.FILES["milepost.yaml"].replace(b"distinct(person)", b"distinct(persona)")
    found: Manual = manual(lenient_bundle({**documented.FILES, "milepost.yaml": main}))
    assert any("left out" in said(one) and "persona" in said(one) for one in found.first)
