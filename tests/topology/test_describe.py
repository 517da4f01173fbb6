"""The line's description: its text is kept beside this test, its data names all that must be there, its picture holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from milepost.topology import describe, line
from milepost.topology.fates import FATES

GOLDEN = Path(__file__).with_name("golden") / "line.txt"

NODE = re.compile(r'^  ([a-z_]+)(\(\[[^\]"]+\]\)|\[/[^/"]+/\]|\["[^"]+"\]|\[\("[^"]+"\)\])$')
EDGE = re.compile(r"^  ([a-z_]+) (?:-->|---) ([a-z_]+)$")


def read(picture: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The declared nodes and the edges of a Mermaid flow chart; AssertionError for a line that is neither."""
    first, *rest = picture.splitlines()
    assert first == "flowchart LR"
    nodes: list[str] = []
    edges: list[tuple[str, str]] = []
    for one in rest:
        if edge := EDGE.match(one):
            edges.append((edge[1], edge[2]))
        else:
            node = NODE.match(one)
            assert node, f"neither a node nor an edge: {one!r}"
            nodes.append(node[1])
    return nodes, edges


def undeclared(picture: str) -> set[str]:
    """Ends of edges that no line declares: Mermaid would draw them as boxes without words."""
    nodes, edges = read(picture)
    return {end for edge in edges for end in edge} - set(nodes)


def test_the_text_is_the_one_that_was_agreed() -> None:
    """The line in words equals golden/line.txt: who changes the line changes that file too, and sees what changed."""
    assert describe.text() == GOLDEN.read_text()


def test_the_text_shows_a_change_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage, a store, a topic's key or a topic written elsewhere changes the text."""
    ingest, measure, record = line.LEGS
    raw, *others = line.TOPICS
    changes = (
        ("LEGS", (replace(ingest, stages=ingest.stages[:-1]), measure, record)),
        ("LEGS", (replace(ingest, stores=ingest.stores[:-1]), measure, record)),
        ("LEGS", (ingest, replace(measure, writes=()), record)),
        ("TOPICS", (replace(raw, key="another"), *others)),
        ("TOPICS", tuple(others)),
    )
    for name, value in changes:
        with monkeypatch.context() as changed:
            changed.setattr(line, name, value)
            assert describe.text() != GOLDEN.read_text(), f"{name} = {value}"


def test_the_legs_are_the_lines_and_each_fate_belongs_to_a_stage() -> None:
    """As data each leg stands in its place with its stages, and every fate is one of a stage that it has."""
    told = describe.legs()
    assert [leg["name"] for leg in told] == [leg.name for leg in (*line.LEGS, *line.ASKING)]
    for leg, declared in zip(told, line.LEGS, strict=False):
        assert (leg["reads"], tuple(leg["stages"])) == (declared.reads, declared.stages)
        assert {fate["stage"] for fate in leg["fates"].values()} <= set(leg["stages"])
        assert leg["fates"].keys() == FATES[leg["name"]].keys()


def test_the_data_names_every_topic_and_leg() -> None:
    """Each topic has its partitions, each leg its source and its changelog, and both are topics themselves."""
    data = describe.data(partitions=6)
    assert data["topics"].keys() == {one.name for one in line.all_topics()}
    for topic in line.all_topics():
        assert data["topics"][topic.name] == (topic.partitions or 6)
    names = [leg.name for leg in line.LEGS]
    assert list(data["agents"]) == list(data["changelogs"]) == names
    assert {*data["agents"].values(), *data["changelogs"].values()} <= data["topics"].keys()
    assert {topic for leg in line.LEGS for topic in leg.writes} <= data["topics"].keys()
    # A changelog's partition is its source's: with another count a restore would look for state where there is none.
    for leg in line.LEGS:
        assert data["topics"][leg.changelog] == data["topics"][leg.reads]


def test_the_picture_declares_the_ends_of_its_edges() -> None:
    """Every line of the picture is a node or an edge, nodes are declared once, and no edge leads to an unknown one."""
    picture = describe.mermaid()
    nodes, edges = read(picture)
    assert len(nodes) == len(set(nodes)) and len(edges) == len(set(edges))
    assert not undeclared(picture)
    assert set(nodes) == {end for edge in edges for end in edge}, "a node without an edge"


def test_the_picture_shows_the_line() -> None:
    """Each topic that a person meets stands in it, each leg with its stages and stores, between what it reads and writes."""
    nodes, edges = read(describe.mermaid())
    assert {topic.name.replace("-", "_") for topic in line.TOPICS} <= set(nodes)
    for leg in line.LEGS:
        assert " · ".join(leg.stages) in describe.mermaid()
        assert " · ".join(store.name for store in leg.stores) in describe.mermaid()
        assert (leg.reads.replace("-", "_"), leg.name) in edges
        for topic in set(leg.writes) - {leg.reads}:
            assert (leg.name, topic.replace("-", "_")) in edges


def test_an_edge_into_nowhere_is_seen() -> None:
    """The check of the picture fails for an edge to a node that nobody declares, and for a line it cannot read."""
    assert undeclared(describe.mermaid() + "  measure --> nowhere\n") == {"nowhere"}
    with pytest.raises(AssertionError, match="neither a node nor an edge"):
        read(describe.mermaid() + "  measure -> signals\n")
