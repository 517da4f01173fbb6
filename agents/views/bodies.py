"""Bodies: a request's body, bounded while it is read, and as the type that a call takes."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from aiohttp import web

from milepost.agents.views.problems import Problem

T = TypeVar("T")

JSON: Final = "application/json"


async def whole_body(request: web.Request, bytes_max: int, fix: str = "send it in parts") -> bytes:
    """The body, refused as soon as it is known to be too large."""
    too_large = Problem(413, "the body is too large", f"at most {bytes_max} bytes", fix=fix)
    if (request.content_length or 0) > bytes_max:
        raise too_large
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "the body is compressed", "Content-Encoding is identity", fix="send it as it is")
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > bytes_max:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def typed_body(request: web.Request, kind: type[T], *, bytes_max: int, title: str, fix: str) -> T:
    """The JSON of a body as `kind`.  Raises Problem: 415 for another content type, 413, 422 with `title` and `fix`."""
    if request.content_type != JSON:
        raise Problem(415, "the content type is not taken", request.content_type[:100], fix=JSON)
    body = await whole_body(request, bytes_max, f"a body of at most {bytes_max} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, title, str(error)[:200], fix=fix) from error
