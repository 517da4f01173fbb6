"""Routes: one table of everything the worker answers.  It drives the routing, the checks of parameters and OpenAPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import faust
from aiohttp import web
from faust.web import View
from faust.web.base import BlueprintManager

from milepost.agents import peers
from milepost.agents.views import (
    by_hand,
    connect,
    definitions,
    events,
    identity,
    internal,
    manual,
    operations,
    outcomes,
    plans,
    queries,
    records,
)
from milepost.agents.views.asking import Asking, Doors, Parameter, answer, ask
from milepost.agents.views.files import Files
from milepost.agents.views.openapi import Route, openapi
from milepost.agents.views.parameters import (
    AFTER,
    BEFORE,
    BY,
    DRY_RUN,
    INSTANT,
    KEY,
    METRIC,
    ORG,
    PAGING,
    RECORD,
    STALE,
    STRETCH,
    TIME,
    TO,
    WHO,
    WINDOW,
    in_path,
)
from milepost.agents.views.problems import STREAM, Problem, ProblemRunner, middleware
from milepost.agents.views.services import Services
from milepost.agents.views.stream import PRESENCE_BODY, Bridge, Present
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
            about="Send one event, an array, NDJSON, or CloudEvents (binary, structured, batch)",
            answers=events.accept,
            body="an event, an array of events, one event a line, a CloudEvent, or a batch of them",
            holds=Envelope | list[Envelope],
            takes=TAKEN,
            success=202,
        ),
        Route(
            path="/v1/events/raw-events/{position}",
            about="What became of a receipt: accepted, duplicate, dead_letter, misrouted or unknown",
            answers=outcomes.outcome,
            parameters=(in_path("position", "partition@offset"),),
        ),
        Route(
            method="POST",
            path="/v1/connect/segment",
            about="Take a call in Segment's shape, or a batch of calls, as events",
            answers=connect.from_segment,
            parameters=(ORG, connect.SOURCE),
            body=connect.SEGMENT_BODY,
            success=202,
        ),
        Route(
            method="POST",
            path="/v1/connect/segment/{call}",
            about="The same at the addresses that Segment's libraries use",
            answers=connect.from_segment,
            parameters=(in_path("call", "batch, track, identify, page, screen, group or alias"), ORG, connect.SOURCE),
            body=connect.SEGMENT_BODY,
            success=202,
        ),
        Route(
            method="POST",
            path="/v1/connect/snowplow",
            about="Take a post of a Snowplow tracker as events",
            answers=connect.from_snowplow,
            parameters=(ORG, connect.SOURCE),
            body=connect.SNOWPLOW_BODY,
            success=202,
        ),
        Route(
            method="POST",
            path="/v1/definitions:plan",
            about="What applying a bundle would change",
            answers=definitions.plan,
            body=definitions.BODY,
            holds=definitions.Bundle,
        ),
        Route(
            method="POST",
            path="/v1/definitions:apply",
            about="Put a bundle in force, also an earlier one",
            answers=definitions.apply,
            body=definitions.BODY,
            holds=definitions.Bundle,
        ),
        Route(
            path="/v1/metrics",
            about="The metrics and the time their events span",
            answers=queries.metrics,
            parameters=(ORG, STALE, AFTER),
        ),
        Route(
            path="/v1/metrics/{metric}/value",
            about="A metric's value at a time",
            answers=queries.value,
            parameters=(METRIC, *WHO, *TIME, WINDOW, STALE, AFTER),
        ),
        Route(
            path="/v1/metrics/{metric}/series",
            about="A metric over time: points [start, next start)",
            answers=queries.series,
            parameters=(METRIC, *WHO, *TIME, *STRETCH, STALE, AFTER),
        ),
        Route(
            path="/v1/metrics/{metric}/breakdown",
            about="A metric by one dimension, by company or by another entity",
            answers=queries.breakdown,
            parameters=(METRIC, BY, *WHO, *TIME, WINDOW, STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/metrics/{metric}/explain",
            about="The events behind a value, added again",
            answers=queries.explain,
            parameters=(METRIC, *WHO, *TIME, WINDOW, STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/metrics/{metric}/diff",
            about="What changed a value between two moments, or two bases, and why",
            answers=queries.diff,
            parameters=(METRIC, *WHO, *BEFORE, *TO, WINDOW, STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/companies",
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
            about="Say who is on the bridge and at which time they look; forgotten after 30 s",
            answers=bridge.present,
            body=PRESENCE_BODY,
            holds=Present,
        ),
        Route(path="/v1/plans", about="The plans in force", answers=plans.plans, parameters=(ORG,)),
        Route(
            path="/v1/plans/{plan}",
            about="How many companies stand how with each milestone of a plan",
            answers=plans.plan,
            parameters=(in_path("plan", "name of a plan"), ORG, *TIME[:2], STALE, AFTER),
        ),
        Route(path="/v1/records", about="The types of records", answers=records.types, parameters=(ORG,)),
        Route(
            path="/v1/records/{type}/{id}",
            about="A record at a time",
            answers=records.value,
            parameters=(*RECORD, *TIME[:2], STALE, AFTER),
        ),
        Route(
            path="/v1/records/{type}/{id}/history",
            about="The changes of a record as of a time, the latest first, each with what it made of the record",
            answers=records.history,
            parameters=(*RECORD, *TIME[:2], STALE, AFTER, *PAGING),
        ),
        Route(
            path="/v1/records/{type}/{id}/diff",
            about="What differs in a record between two moments, and the changes that made it so",
            answers=records.diff,
            parameters=(*RECORD, *BEFORE[:2], *TO, STALE, AFTER),
        ),
        Route(
            method="POST",
            path="/v1/records/{type}/{id}/restore",
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
            about="Say that a source has sent everything up to a time",
            answers=by_hand.complete,
            parameters=(in_path("source", "name of a source"),),
            body=by_hand.COMPLETE_BODY,
            holds=by_hand.Complete,
            success=202,
        ),
        Route(
            path="/v1/companies/{metakey}",
            about="A company: its keys and links",
            answers=queries.company,
            parameters=(in_path("metakey", "a MetaKey, or key:value"), ORG, STALE, AFTER),
        ),
        Route(
            path="/v1/identity/resolve",
            about="What an alternate key stands for, and the chain of why",
            answers=identity.resolve,
            parameters=(ORG, *KEY, Parameter(name="at", about="as decided by then", schema=INSTANT), STALE, AFTER),
        ),
        Route(
            path="/v1/identity/review",
            about="Links that were refused and wait for a decision",
            answers=identity.review,
            parameters=(ORG, STALE, *PAGING),
        ),
        Route(
            method="POST",
            path="/v1/identity/link",
            about="Say that keys are one thing",
            answers=identity.link,
            parameters=(DRY_RUN,),
            body=identity.BODY,
            holds=identity.Keys,
        ),
        Route(
            method="POST",
            path="/v1/identity/unlink",
            about="Say that keys leave what they are part of",
            answers=identity.unlink,
            parameters=(DRY_RUN,),
            body=identity.BODY,
            holds=identity.Keys,
        ),
        Route(
            method="POST",
            path="/v1/identity/membership",
            about="Say when a person or device belonged to a company",
            answers=identity.membership,
            body=identity.MEMBERSHIP_BODY,
            holds=identity.Membership,
        ),
        *manual.routes(),
        Route(
            path="/v1/dead-letters",
            about="Problems among the dead letters",
            answers=operations.dead_letters,
            parameters=PAGING,
        ),
        Route(path="/v1/digest", about="SHA-256 over the content of all tables", answers=operations.digest),
        Route(path="/v1/topology", about="The line as this worker runs it", answers=operations.topology),
        Route(path="/v1/status", about="Fates, lag and partitions", answers=operations.status),
        Route(path="/metrics", about="Telemetry for Prometheus", answers=operations.exposition),
        Route(path="/healthz", about="Whether the process lives", answers=operations.healthz),
        Route(path="/readyz", about="Whether its answers are whole", answers=operations.readyz),
        Route(
            method="POST",
            path=peers.PATH,
            about="What this worker has of a question that another was asked",
            answers=internal.parts,
            internal=True,
        ),
        Route(
            path="/",
            about="The page",
            answers=files.index,
            parameters=(Parameter(name="*", about="what the page shows; read by the page itself"),),
        ),
        Route(
            path="/page/{path:.+}",
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
    table = list(routes(Files(), bridge))
    document = openapi(tuple(table))

    async def described(doors: Doors, asking: Asking) -> web.Response:
        return answer(document)

    table.append(Route(path="/openapi.json", about="This interface as OpenAPI 3.1", answers=described))
    server: Any = app.web
    server.blueprints = BlueprintManager([])
    server.web_app.middlewares.append(middleware(services.settings, _labels(table)))
    server.web_app.on_shutdown.append(lambda _: bridge.streams.close())
    server._runner = ProblemRunner(server.web_app, access_log=None)
    for route in table:
        server.add_view(_view(route, doors))


def _view(route: Route, doors: Doors) -> type[View]:
    """A Faust view class for a row of the table."""

    async def respond(self: View, request: web.Request, **parts: str) -> web.StreamResponse:
        return await route.answers(doors, ask(request, route.parameters))

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
