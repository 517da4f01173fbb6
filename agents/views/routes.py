"""Routes: one table of everything the worker answers.  It drives the routing, the checks of parameters and OpenAPI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import faust
from aiohttp import web
from faust.web import View
from faust.web.base import BlueprintManager

from milepost.agents import peers
from milepost.agents.views import (
    by_hand,
    connect,
    dead_letters,
    definitions,
    events,
    identity,
    internal,
    manual,
    operations,
    outcomes,
    plans,
    positions,
    quality,
    queries,
    records,
    session,
    signals,
)
from milepost.agents.views.admission import Admission
from milepost.agents.views.asking import PRINCIPAL, Asking, Doors, Parameter, answer, ask
from milepost.agents.views.auditing import audited, is_change
from milepost.agents.views.connections import ProblemRunner
from milepost.agents.views.files import Files
from milepost.agents.views.openapi import EVERYBODY, Route, openapi
from milepost.agents.views.parameters import (
    AFTER,
    BEFORE,
    BY,
    METRIC,
    ORG,
    PAGING,
    POINT,
    RECORD,
    STALE,
    STRETCH,
    TIME,
    TO,
    WHO,
    WINDOW,
    in_path,
)
from milepost.agents.views.problems import STREAM, Problem, middleware
from milepost.agents.views.services import Services
from milepost.agents.views.stream import PRESENCE_BODY, Bridge, Present
from milepost.ops.access import Role
from milepost.schemas.records import Envelope
from milepost.topology import cloudevents
from milepost.topology.explain import Explanations
from milepost.topology.standings import Standings

TAKEN: Final = ("application/json", "application/x-ndjson", cloudevents.STRUCTURED, cloudevents.BATCH)
"""What a body may be."""


def routes(files: Files, bridge: Bridge) -> tuple[Route, ...]:
    """The table."""
    return (
        Route(
            method="POST",
            path="/v1/events",
            role=Role.WRITE,
            mine=True,
            about="Send one event, an array, NDJSON, or CloudEvents (binary, structured, batch)",
            answers=events.accept,
            body="an event, an array of events, one event a line, a CloudEvent, or a batch of them",
            holds=Envelope | list[Envelope],
            takes=TAKEN,
            success=202,
        ),
        Route(
            path="/v1/events/raw-events/{position}",
            role=Role.READ,
            mine=True,
            about="What became of a receipt: accepted, duplicate, dead_letter, misrouted or unknown",
            answers=outcomes.outcome,
            parameters=(in_path("position", "partition@offset"),),
        ),
        positions.ROUTE,
        *connect.ROUTES,
        Route(
            method="POST",
            path="/v1/definitions:plan",
            role=Role.READ,
            about="What applying a bundle would change",
            answers=definitions.plan,
            body=definitions.BODY,
            holds=definitions.Bundle,
        ),
        Route(
            method="POST",
            path="/v1/definitions:apply",
            role=Role.OPERATE,
            about="Put a bundle in force, also an earlier one",
            answers=definitions.apply,
            body=definitions.BODY,
            holds=definitions.Bundle,
        ),
        Route(
            path="/v1/metrics",
            role=Role.READ,
            about="The metrics and the time their events span",
            answers=queries.metrics,
            parameters=(ORG, STALE, AFTER),
        ),
        Route(
            path="/v1/metrics/{metric}/value",
            role=Role.READ,
            about="A metric's value at a time",
            answers=queries.value,
            parameters=(METRIC, *WHO, *TIME, WINDOW, STALE, AFTER),
        ),
        Route(
            path="/v1/metrics/{metric}/series",
            role=Role.READ,
            about="A metric over time: points [start, next start)",
            answers=queries.series,
            parameters=(METRIC, *WHO, *TIME, *STRETCH, STALE, AFTER),
        ),
        Route(
            path="/v1/metrics/{metric}/breakdown",
            role=Role.READ,
            about="A metric by one dimension, by company or by another entity",
            answers=queries.breakdown,
            parameters=(METRIC, BY, *WHO, *TIME, WINDOW, STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/metrics/{metric}/explain",
            role=Role.READ,
            about="The events behind a value, added again",
            answers=queries.explain,
            parameters=(METRIC, *WHO, *TIME, WINDOW, *POINT, STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/metrics/{metric}/diff",
            role=Role.READ,
            about="What changed a value between two moments, or two bases, and why",
            answers=queries.diff,
            parameters=(METRIC, *WHO, *BEFORE, *TO, WINDOW, STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/companies",
            role=Role.READ,
            about="The companies by name",
            answers=queries.companies,
            parameters=(
                ORG,
                Parameter(name="q", about="part of a name or key, or the start of a MetaKey"),
                STALE,
                AFTER,
                *PAGING,
            ),
        ),
        Route(
            path="/v1/milestones",
            role=Role.READ,
            about="How the milestones of plans stand, with the values that decide them",
            answers=plans.milestones,
            parameters=(
                ORG,
                Parameter(name="company", about="mk_… or key:value; without it every company of the plans"),
                Parameter(name="plan", about="of this plan only"),
                Parameter(name="milestone", about="this one only"),
                *TIME[:2],
                STALE,
                AFTER,
                *PAGING,
            ),
        ),
        Route(
            path="/v1/milestones/history",
            role=Role.READ,
            about="What was recognised of a company's milestones, and corrected since",
            answers=plans.history,
            parameters=(
                ORG,
                Parameter(name="company", about="mk_… or key:value", required=True),
                Parameter(name="plan", about="of this plan only"),
                Parameter(name="milestone", about="this one only"),
                STALE,
                AFTER,
                *PAGING,
            ),
        ),
        Route(
            path=STREAM,
            role=Role.READ,
            about="Values and milestones as they change, as server-sent events: value, milestone, revoked, presence",
            answers=bridge.stream,
            parameters=(
                Parameter(name="metric", about="name of a metric; as often as wanted", many=True),
                Parameter(name="milestone", about="name of a milestone; as often as wanted", many=True),
                Parameter(name="company", about="mk_… or key:value, as often as wanted; without it all", many=True),
                ORG,
                Parameter(name="plan", about="milestones of this plan only"),
                WHO[-1],
                *TIME,
                WINDOW,
                STALE,
            ),
            gives="text/event-stream",
        ),
        Route(
            method="POST",
            path="/v1/presence",
            role=Role.READ,
            about="Say who is on the bridge and at which time they look; forgotten after 30 s",
            answers=bridge.present,
            body=PRESENCE_BODY,
            holds=Present,
        ),
        Route(path="/v1/plans", about="The plans in force", role=Role.READ, answers=plans.plans, parameters=(ORG,)),
        Route(
            path="/v1/plans/{plan}",
            role=Role.READ,
            about="How many companies stand how with each milestone of a plan",
            answers=plans.plan,
            parameters=(in_path("plan", "name of a plan"), ORG, *TIME[:2], STALE, AFTER),
        ),
        *signals.ROUTES,
        Route(
            path="/v1/records", about="The types of records", role=Role.READ, answers=records.types, parameters=(ORG,)
        ),
        Route(
            path="/v1/records/{type}/{id}",
            role=Role.READ,
            about="A record at a time",
            answers=records.value,
            parameters=(*RECORD, *TIME[:2], STALE, AFTER),
        ),
        Route(
            path="/v1/records/{type}/{id}/history",
            role=Role.READ,
            about="The changes of a record as of a time, the latest first, each with what it made of the record",
            answers=records.history,
            parameters=(*RECORD, *TIME[:2], STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/records/{type}/{id}/diff",
            role=Role.READ,
            about="What differs in a record between two moments, and the changes that made it so",
            answers=records.diff,
            parameters=(*RECORD, *BEFORE[:2], *TO, STALE, AFTER),
        ),
        Route(
            method="POST",
            path="/v1/records/{type}/{id}/restore",
            role=Role.OPERATE,
            about="Make what a record was at a time its newest version",
            answers=records.restore,
            body=records.BODY,
            holds=records.Restore,
            parameters=RECORD[:2],
            success=202,
        ),
        Route(
            method="POST",
            path="/v1/plans/{plan}/milestones/{milestone}/actions/{action}",
            role=Role.OPERATE,
            about="Tick or untick an action that people do, for a company",
            answers=plans.tick,
            parameters=tuple(in_path(one, f"name of the {one}") for one in ("plan", "milestone", "action")),
            body=plans.TICK_BODY,
            holds=plans.Tick,
            success=202,
        ),
        Route(
            method="POST",
            path="/v1/plans/{plan}/milestones/{milestone}/disputes/{dispute}:accept",
            role=Role.OPERATE,
            about="Accept a correction of a milestone that was final already",
            answers=plans.accept,
            parameters=(
                *(in_path(one, f"name of the {one}") for one in ("plan", "milestone")),
                in_path("dispute", "id of the record that opened it"),
            ),
            body=plans.ACCEPT_BODY,
            holds=plans.Accept,
            success=202,
        ),
        Route(
            method="POST",
            path="/v1/sources/{source}/complete",
            role=Role.WRITE,
            about="Say that a source has sent everything up to a time",
            answers=by_hand.complete,
            parameters=(in_path("source", "name of a source"),),
            body=by_hand.COMPLETE_BODY,
            holds=by_hand.Complete,
            success=202,
        ),
        Route(
            path="/v1/companies/{metakey}",
            role=Role.READ,
            about="A company: its keys and links",
            answers=queries.company,
            parameters=(in_path("metakey", "a MetaKey, or key:value"), ORG, STALE, AFTER),
        ),
        *identity.ROUTES,
        *quality.ROUTES,
        *dead_letters.routes(),
        *manual.routes(),
        Route(
            path="/v1/digest",
            about="SHA-256 over the content of all tables",
            role=Role.OPERATE,
            answers=operations.digest,
        ),
        Route(
            path="/v1/topology", about="The line as this worker runs it", role=Role.READ, answers=operations.topology
        ),
        Route(path="/v1/status", about="Fates, lag and partitions", role=Role.READ, answers=operations.status),
        Route(path="/metrics", about="Telemetry for Prometheus", role=Role.READ, answers=operations.exposition),
        Route(path="/healthz", about="Whether the process lives", role=EVERYBODY, answers=operations.healthz),
        Route(path="/readyz", about="Whether its answers are whole", role=EVERYBODY, answers=operations.readyz),
        Route(
            method="POST",
            path=peers.PATH,
            role=EVERYBODY,
            about="What this worker has of a question that another was asked",
            answers=internal.parts,
            internal=True,
        ),
        Route(
            path="/",
            role=EVERYBODY,
            about="The page",
            answers=files.index,
            parameters=(Parameter(name="*", about="what the page shows; read by the page itself"),),
        ),
        Route(
            path="/page/{path:.+}",
            role=EVERYBODY,
            about="The page's files",
            answers=files.asset,
            parameters=(in_path("path", "a file of the page"),),
        ),
    )


def attach(app: faust.App, services: Services) -> None:
    """Put the views on a Faust app, before its web server starts.

    Faust's own blueprints (`/`, `/table`, `/router`, `/graph`) are taken off: they serve state past every check."""
    doors = Doors(services, Explanations(services.reader), Standings(services.reader))
    bridge = Bridge(doors)
    doors.streams = lambda: len(bridge.streams.clients)
    table = [*routes(Files(), bridge), *session.routes(lambda: admission)]
    document = openapi(tuple(table))

    async def described(doors: Doors, asking: Asking) -> web.Response:
        return answer(document)

    about = "This interface as OpenAPI 3.1"
    table.append(Route(path="/openapi.json", about=about, role=Role.READ, mine=True, answers=described))
    admission = Admission(services.settings, services.book, placed(table))
    doors.holds = admission.holds
    services.book.changed.append(bridge.streams.recheck)

    async def admit(request: web.Request) -> None:
        request[PRINCIPAL] = await admission.admit(request)

    server: Any = app.web
    server.blueprints = BlueprintManager([])
    server.web_app.middlewares.append(middleware(admit, _labels(table)))
    server.web_app.on_shutdown.append(lambda _: bridge.streams.close())
    server._runner = ProblemRunner(server.web_app)
    for route in table:
        server.add_view(_view(route, doors))


def placed(table: Iterable[Route]) -> dict[tuple[str, str], Route]:
    """The table by method and the path as aiohttp names it, without patterns."""
    return {(route.method, route.path.replace(":.+", "")): route for route in table}


def _view(route: Route, doors: Doors) -> type[View]:
    """A Faust view class for a row of the table."""

    async def respond(self: View, request: web.Request, **parts: str) -> web.StreamResponse:
        asking = ask(request, route.parameters)
        if is_change(route, asking):
            return await audited(doors, asking, route)
        return await route.answers(doors, asking)

    async def refuse(self: View, request: web.Request, **parts: str) -> web.Response:
        raise Problem(405, "Method Not Allowed", f"{route.path} takes {route.method}")

    methods: dict[str, Any] = {route.method.lower(): respond}
    if route.method != "GET":
        methods["head"] = refuse  # Faust routes HEAD to every view
    return type(
        route.name, (View,), {**methods, "view_name": route.name, "view_path": route.path, "__doc__": route.about}
    )


def _labels(table: list[Route]) -> Callable[[web.Request], str]:
    """A request's route as a telemetry label: a path of the table, or `other`."""
    known = {route.path for route in table}

    def label(request: web.Request) -> str:
        resource = request.match_info.route.resource if request.match_info is not None else None
        path = resource.canonical if resource is not None else ""
        return path if path in known else "page" if path.startswith("/page/") else "other"

    return label
