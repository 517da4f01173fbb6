"""Bodies: a request's body, bounded while it is read, and as the type that a call takes."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from milepost.agents.views.asking import PRINCIPAL
from milepost.agents.views.problems import Problem
from milepost.ops.access import own

T = TypeVar("T")

JSON: Final = "application/json"
PIECE_S: Final = 10.0
"""How long the next piece of a body may take, seconds."""
WHOLE_S: Final = 120.0
"""How long a whole body may take."""


async def whole_body(
    request: web.Request, bytes_max: int, fix: str = "send it in parts", whole_s: float | None = None
) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    too_large = Problem(413, "the body is too large", f"at most {bytes_max} bytes", fix=fix)
    if (request.content_length or 0) > bytes_max:
        raise too_large
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "the body is compressed", "Content-Encoding is identity", fix="send it as it is")
    parts: list[bytes] = []
    size = 0
    try:
        loop = asyncio.get_running_loop()
        until = loop.time() + (whole_s or WHOLE_S)
        async with asyncio.timeout_at(min(until, loop.time() + PIECE_S)) as bound:
            while part := await request.content.readany():
                bound.reschedule(min(until, loop.time() + PIECE_S))
                size += len(part)
                if size > bytes_max:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        detail = f"a piece may take {PIECE_S:.0f} s, the whole {whole_s or WHOLE_S:.0f} s"
        raise Problem(408, "the body came too slowly", detail) from error
    return b"".join(parts)


async def typed_body(request: web.Request, kind: type[T], *, bytes_max: int, title: str, fix: str) -> T:
    """The JSON of a body as `kind`.  Raises Problem: 415 for another content type, 413, 422 with `title` and `fix`."""
    if request.content_type != JSON:
        raise Problem(415, "the content type is not taken", request.content_type[:100], fix=JSON)
    body = await whole_body(request, bytes_max, f"a body of at most {bytes_max} bytes")
    try:
        told: Any = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, title, str(error)[:200], fix=fix) from error
    if hasattr(told, "org"):
        told.org = own(request.get(PRINCIPAL), told.org)
    return told  # type: ignore[no-any-return]
