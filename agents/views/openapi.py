"""OpenAPI: a row of the table of routes, and the table as a document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, Parameter
from milepost.agents.views.bodies import JSON
from milepost.agents.views.problems import CONTENT_TYPE
from milepost.ops.access import Role

EVERYBODY: Final = "everybody"
"""The role of a route that asks for no token."""

WAYS: Final[dict[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token (`milepost tokens create`) or one of the issuer's; with a call, the role it needs",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "milepost_session_{port}",
        "description": "A page that has signed in by POST /v1/session",
    },
}
"""How a token is shown, as OpenAPI says it."""
Answering = Callable[[Doors, Asking], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call: what it is for, its parameters, who answers.

    body:     what it holds, in words;  holds: the type that its JSON is read as;  takes: of which content types
    success:  the status of an answer;  gives: its content type;  tells: the type that describes its JSON
    internal: for other workers, not in the description
    role:     what a token needs to open it (admission.py); EVERYBODY: there need be none
    mine:     whether the answer keeps to the organisation of who asks though the request names none
    """

    method: str = "GET"
    path: str
    about: str
    answers: Answering
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    holds: Any = None
    takes: tuple[str, ...] = (JSON,)
    success: int = 200
    gives: str = JSON
    tells: Any = None
    internal: bool = False
    role: Role | Literal["everybody"] | None = None
    mine: bool = False

    @property
    def of_one(self) -> bool:
        """Whether it is about one organisation: the request names it, in query or body, or the answer keeps to it."""
        named = any(one.name == "org" for one in self.parameters)
        return self.mine or named or "org" in getattr(self.holds, "__struct_fields__", ())

    @property
    def name(self) -> str:
        """A closed name for views and telemetry: `get_v1_metrics_metric_value`."""
        words = [self.method.lower(), *self.path.replace("{", "").replace("}", "").replace(":", "_").split("/")]
        return "_".join(word.replace("-", "_").replace(".", "_") for word in words if word)


def openapi(table: tuple[Route, ...]) -> dict[str, Any]:
    """The table as an OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    types = [one for route in table for one in (route.holds, route.tells) if one is not None]
    shapes, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    shape_of = dict(zip(types, shapes, strict=True))
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
                    "schema": {"type": "array", "items": one.schema} if one.many else one.schema,
                }
                for one in route.parameters
            ],
            "security": [] if route.role == EVERYBODY else [{way: [route.role or Role.OPERATE]} for way in WAYS],
            "responses": {
                str(route.success): {"description": "the answer", "content": {route.gives: _told(route, shape_of)}},
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
                "content": {kind: {"schema": {}} for kind in route.takes}
                | ({JSON: {"schema": shape_of[route.holds]}} if route.holds is not None else {}),
            }
        paths.setdefault(route.path.replace(":.+", ""), {})[route.method.lower()] = call
    texts = {name: {"type": "string"} for name in ("type", "title", "detail", "guess", "fix")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Milepost", "version": "1", "description": "Metrics of shared outcomes at any point in time"},
        "paths": paths,
        "components": {
            "securitySchemes": WAYS,
            "schemas": {
                **components,
                "Problem": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail", "fix"],
                    "properties": {**texts, "status": {"type": "integer"}},
                },
            },
        },
    }


def _told(route: Route, shape_of: Mapping[Any, Any]) -> dict[str, Any]:
    return {} if route.tells is None else {"schema": shape_of[route.tells]}
