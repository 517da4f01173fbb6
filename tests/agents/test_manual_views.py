"""The documentation and the lineage over HTTP: what is documented is what runs, now, and shows no person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost.agents.views.problems import HEADERS
from milepost.ops.settings import Settings
from milepost.topology.bases import written
from milepost.topology.catalog import load_bundle
from milepost.topology.driver import Driver
from milepost.topology.lineage import Lineage
from tests.agents.test_views import NOW, Site, Tables, Worker, served
from tests.support import documented
from tests.support.workers import SECRET
from tests.topology.test_manual import Page

HOUR = 3_600_000


def visit(i: int, t_ms: int, **data: Any) -> dict[str, Any]:
    person = {"email": f"{documented.CANARY}@example.org", "phone": documented.CANARY}
    place = {"city": "Ulm", "street": documented.CANARY}
    data = {"company": f"c{i % 3}", "minutes": 5.0, "tags": ["page"], "address": place, **person, **data}
    return {"org": documented.ORG, "source": "app", "id": f"v{i}", "type": "visit", "time": written(t_ms), "data": data}


def driven() -> Driver:
    """Definitions, visits, other definitions an hour ago, and a last visit twenty minutes ago."""
    driver = Driver(SECRET.encode(), partitions=3)
    driver.apply(documented.ORG, documented.FILES, NOW - 48 * HOUR)
    for i in range(12):
        t_ms = NOW - (30 - i) * HOUR
        driver.produce(visit(i, t_ms), t_ms)
    main = documented.FILES["milepost.yaml"].replace(b"data.amount * 2.0", b"data.amount * 3.0")
    driver.apply(documented.ORG, {**documented.FILES, "milepost.yaml": main}, NOW - HOUR)
    driver.produce(visit(99, NOW - 20 * 60_000), NOW - 20 * 60_000)
    driver.run()
    driver.tick(NOW)
    driver.run()
    return driver


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home: Path = tmp_path_factory.mktemp("home")
    yield from served(Worker(Settings(home=home), Tables(driven().reader)))


def facts(page: str, anchor: str) -> str:
    """The part of the page under a heading, as text."""
    _, _, rest = page.partition(f'<h3 id="{anchor}">')
    return Page(rest.partition("</article>")[0]).text


def test_the_page_shows_what_runs_and_since_when(site: Site) -> None:
    """HTML under the usual policy; versions with the moment from which each holds; freshness; what is stale on top."""
    got = site.get("/docs")
    assert got.status == 200 and got.headers["content-type"] == "text/html; charset=utf-8"
    assert all(got.headers[name.lower()] == value for name, value in HEADERS.items())
    page = got.body.decode()
    assert "Definitions of acme" in page
    text = Page(page).text
    assert "source app is stale: the newest event came 20 minutes ago" in text
    assert "source shop has no owner" in text
    assert "in force since 4 February 2014, 23:00 UTC" in facts(page, "rule-ordered")
    assert "in force since 3 February 2014, 00:00 UTC" in facts(page, "rule-visited")
    assert "nothing has come yet" in facts(page, "source-shop")
    assert "20 minutes ago" in facts(page, "metric-visits")


def test_examples_are_events_of_the_log_without_persons(site: Site) -> None:
    """A visit of the log stands as its contract's example, with its position; nothing of a person does."""
    page = site.get("/docs").body.decode()
    visit_ = facts(page, "contract-Visit")
    assert "From the log, at raw-events/" in visit_ and '"city": "Ulm"' in visit_
    assert "Made from the contract" in facts(page, "contract-Order")
    assert documented.CANARY not in page and "•••" in visit_


def test_the_lineage_is_the_graph_of_what_runs(site: Site) -> None:
    """All nodes and edges by pages are those of the graph; fields come when they are asked for."""
    graph = Lineage(load_bundle(documented.FILES))
    for fields, wanted in (
        ("true", set(graph.nodes)),
        ("false", {k for k, v in graph.nodes.items() if v.what != "field"}),
    ):
        nodes: list[dict[str, Any]] = []
        edges: list[dict[str, Any]] = []
        further: str | None = "0"
        while further is not None:
            told = site.get("/v1/lineage", fields=fields, limit="7", next=further).json
            assert len(told["nodes"]) <= 7
            nodes, edges, further = nodes + told["nodes"], edges + told["edges"], told["next"]
        assert {one["id"] for one in nodes} == wanted and len(nodes) == len(wanted)
        ends = {(one["from"], one["to"], one["how"]) for one in edges}
        assert ends == {
            (one.start.id, one.end.id, one.how) for one in graph.edges if {one.start.id, one.end.id} <= wanted
        }
    by_id = {one["id"]: one for one in nodes}
    assert by_id["metric-orders"]["owners"] == {"app <b>team</b> | [x](y) _z_ `q`": ["app"], "": ["shop"]}
    assert by_id["rule-ordered"]["since"] == written(NOW - HOUR)
    assert by_id["metric-visits"]["docs"] == "/docs#metric-visits" and "version" not in by_id["key-person/email"]


@pytest.mark.parametrize("direction", ["up", "down", "both", "breaks"])
def test_one_node_is_followed_in_each_direction(site: Site, direction: str) -> None:
    """What it is made of, what is made of it, and what breaks if it goes."""
    graph = Lineage(load_bundle(documented.FILES))
    node = graph.nodes["field-Visit.minutes"]
    ways = {"up": graph.made_of(node), "down": graph.leads_to(node), "breaks": graph.breaks(node)}
    wanted = {node, *ways["up"], *ways["down"]} if direction == "both" else {node, *ways[direction]}
    told = site.get("/v1/lineage", node=node.id, direction=direction).json
    assert {one["id"] for one in told["nodes"]} == {one.id for one in wanted}
    assert {one["id"] for one in told["nodes"] if one.get("breaks")} == {one.id for one in ways["breaks"]} & {
        one["id"] for one in told["nodes"]
    }


def test_what_is_not_there_is_refused_with_a_guess(site: Site) -> None:
    """A node, a direction, a direction of nothing, an organisation."""
    got = site.get("/v1/lineage", node="metric-visit")
    assert (got.status, got.json["guess"], got.json["type"]) == (404, "metric-visits", "/problems/unknown-node")
    assert site.get("/v1/lineage", node="metric-visits", direction="sideways").status == 422
    assert site.get("/v1/lineage", direction="up").status == 422
    assert site.get("/docs", org="acmee").json["guess"] == "acme"
    assert site.get("/docs", nothing="1").status == 422


def test_the_page_is_there_while_nothing_can_be_read_of_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker is slow the examples are made from the contracts."""
    import asyncio

    from milepost.agents.views import manual

    async def never(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(manual, "EXAMPLES_S_MAX", 0.05)
    monkeypatch.setattr(manual, "KEPT_S", 0.0)
    monkeypatch.setattr(site.worker, "raw", never)
    got = site.get("/docs")
    assert got.status == 200 and "From the log" not in got.body.decode()
