"""Routes: one table of everything the worker answers.  It drives the routing, the checks of parameters and OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import faust
from aiohttp import web
from faust.web import View
from faust.web.base import BlueprintManager

from milepost.agents import peers
from milepost.agents.views import definitions, events, identity, internal, operations, outcomes, plans, queries
from milepost.agents.views.asking import Asking, Doors, Parameter, answer, ask
from milepost.agents.views.files import Files
from milepost.agents.views.problems import CONTENT_TYPE, Problem, ProblemRunner, middleware
from milepost.agents.views.services import Services
from milepost.topology import cloudevents
from milepost.topology.explain import Explanations
from milepost.topology.standings import Standings

Answering = Callable[[Doors, Asking], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call: what it is for, its parameters, who answers.

    body:     what it holds;  takes: of which content types;  success: the status of an answer
    internal: for other workers, not in the description
    """

    method: str = "GET"
    path: str
    about: str
    answers: Answering
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    takes: tuple[str, ...] = ("application/json",)
    success: int = 200
    internal: bool = False

    @property
    def name(self) -> str:
        """A closed name for views and telemetry: `get_v1_metrics_metric_value`."""
        words = [self.method.lower(), *self.path.replace("{", "").replace("}", "").replace(":", "_").split("/")]
        return "_".join(word.replace("-", "_").replace(".", "_") for word in words if word)


def _in_path(name: str, about: str) -> Parameter:
    return Parameter(name=name, about=about, required=True, place="path")


ORG: Final = Parameter(name="org", about="organisation; may be left out when there is one")
TIME: Final = (
    Parameter(name="at", about="RFC 3339 with zone; floored to 15 minutes; alone it means basis=corrected"),
    Parameter(name="basis", about="latest (default), corrected or as_shown"),
    Parameter(name="tz", about="IANA time zone of calendar units, default UTC"),
)
BEFORE: Final = (
    Parameter(name="at", about="the first moment; without it now, with basis=latest"),
    Parameter(name="basis", about="at the first moment: as_shown (default with at), corrected or latest"),
    Parameter(name="tz", about="IANA time zone of calendar units, default UTC"),
)
TO: Final = (
    Parameter(name="to", about="the second moment; without it now, with to_basis=latest"),
    Parameter(name="to_basis", about="at the second moment: as_shown (default with to), corrected or latest"),
)
WINDOW: Final = Parameter(
    name="window", about="all (default), <n>m, <n>h, <n>d up to 3660d, year, month, week or day of tz"
)
STRETCH: Final = (
    Parameter(name="from", about="start of the first point", required=True),
    Parameter(name="to", about="starts lie before it; default at, or now"),
    Parameter(name="every", about="<n>m, <n>h, <n>d, day, week, month or year; default 1d; 4,000 points at most"),
)
BY: Final = Parameter(name="by", about="a dimension, or company", required=True)
KEY: Final = (
    Parameter(name="entity", about="default company"),
    Parameter(name="key", about="kind of key", required=True),
    Parameter(name="value", about="its value", required=True),
)
WHO: Final = (
    ORG,
    Parameter(name="company", about="mk_… or key:value; without it the whole organisation"),
    Parameter(name="dim.*", about="value of a dimension: dim.origin=JFK"),
)
STALE: Final = Parameter(
    name="stale_ms", about="how much the answer may lag, so that a standby may give it; it says lag_ms then"
)
AFTER: Final = Parameter(
    name="after", about="a receipt (raw-events/3@1288): the answer includes it, and waits up to 5 s for that, else 503"
)
PAGING: Final = (
    Parameter(name="limit", about="rows a page, at most 1,000"),
    Parameter(name="next", about="the value of next in the answer before"),
)
DRY_RUN: Final = Parameter(name="dry_run", about="true: only say what it would do")
METRIC: Final = _in_path("metric", "name of a metric")


TAKEN: Final = ("application/json", "application/x-ndjson", cloudevents.STRUCTURED, cloudevents.BATCH)
"""What a body may be."""


def routes(files: Files) -> tuple[Route, ...]:
    """The table."""
    return (
        Route(
            method="POST",
            path="/v1/events",
            about="Send one event, an array, NDJSON, or CloudEvents (binary, structured, batch)",
            answers=events.accept,
            body="an event, an array of events, one event a line, a CloudEvent, or a batch of them",
            takes=TAKEN,
            success=202,
        ),
        Route(
            path="/v1/events/raw-events/{position}",
            about="What became of a receipt: accepted, duplicate, dead_letter, misrouted or unknown",
            answers=outcomes.outcome,
            parameters=(_in_path("position", "partition@offset"),),
        ),
        Route(
            method="POST",
            path="/v1/definitions:plan",
            about="What applying a bundle would change",
            answers=definitions.plan,
            body=definitions.BODY,
        ),
        Route(
            method="POST",
            path="/v1/definitions:apply",
            about="Put a bundle in force",
            answers=definitions.apply,
            body=definitions.BODY,
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
            about="A metric by one dimension or by company",
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
        Route(path="/v1/plans", about="The plans in force", answers=plans.plans, parameters=(ORG,)),
        Route(
            path="/v1/plans/{plan}",
            about="How many companies stand how with each milestone of a plan",
            answers=plans.plan,
            parameters=(_in_path("plan", "name of a plan"), ORG, *TIME[:2], STALE, AFTER),
        ),
        Route(
            path="/v1/companies/{metakey}",
            about="A company: its keys and links",
            answers=queries.company,
            parameters=(_in_path("metakey", "a MetaKey, or key:value"), ORG, STALE, AFTER),
        ),
        Route(
            path="/v1/identity/resolve",
            about="What an alternate key stands for, and the chain of why",
            answers=identity.resolve,
            parameters=(ORG, *KEY, Parameter(name="at", about="as decided by then"), STALE, AFTER),
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
        ),
        Route(
            method="POST",
            path="/v1/identity/unlink",
            about="Say that keys leave what they are part of",
            answers=identity.unlink,
            parameters=(DRY_RUN,),
            body=identity.BODY,
        ),
        Route(
            method="POST",
            path="/v1/identity/membership",
            about="Say when a person or device belonged to a company",
            answers=identity.membership,
            body=identity.MEMBERSHIP_BODY,
        ),
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
            parameters=(_in_path("path", "a file of the page"),),
        ),
    )


def attach(app: faust.App, services: Services) -> None:
    """Put the views on a Faust app, before its web server starts.

    Faust's own blueprints (`/`, `/table`, `/router`, `/graph`) are taken off: they serve state past every check."""
    table = list(routes(Files()))
    document = openapi(tuple(table))

    async def described(doors: Doors, asking: Asking) -> web.Response:
        return answer(document)

    table.append(Route(path="/openapi.json", about="This interface as OpenAPI 3.1", answers=described))
    doors = Doors(services, Explanations(services.reader), Standings(services.reader))
    server: Any = app.web
    server.blueprints = BlueprintManager([])
    server.web_app.middlewares.append(middleware(services.settings, _labels(table)))
    server._runner = ProblemRunner(server.web_app, access_log=None)
    for route in table:
        server.add_view(_view(route, doors))


def openapi(table: tuple[Route, ...]) -> dict[str, Any]:
    """The table as an OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    for route in table:
        if route.internal:
            continue
        call: dict[str, Any] = {
            "operationId": route.name,
            "summary": route.about,
            "parameters": [
                {
                    "name": one.name,
                    "in": one.place,
                    "required": one.required,
                    "description": one.about,
                    "schema": {"type": "string"},
                }
                for one in route.parameters
            ],
            "responses": {
                str(route.success): {"description": "the answer"},
                "default": {
                    "description": "a problem (RFC 9457)",
                    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
            },
        }
        if route.body:
            call["requestBody"] = {
                "required": True,
                "description": route.body,
                "content": {kind: {"schema": {}} for kind in route.takes},
            }
        paths.setdefault(route.path.replace(":.+", ""), {})[route.method.lower()] = call
    texts = {name: {"type": "string"} for name in ("type", "title", "detail", "guess", "fix")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Milepost", "version": "1", "description": "Metrics of shared outcomes at any point in time"},
        "paths": paths,
        "components": {
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {**texts, "status": {"type": "integer"}},
                }
            }
        },
    }


def _view(route: Route, doors: Doors) -> type[View]:
    """A Faust view class for a row of the table."""

    async def respond(self: View, request: web.Request, **parts: str) -> web.Response:
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
