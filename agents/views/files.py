"""Files: the page and its assets, from a closed list read at start; nothing a request says becomes a path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from milepost.agents.views.asking import Asking, Doors
from milepost.agents.views.problems import Problem

FOLDER: Final = Path(__file__).parent / "page"
TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".woff2": "font/woff2",
    "": "text/plain",
}


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    content_type: str
    etag: str


class Files:
    """The files under a folder by their path, `chart.js` or `vendor/uPlot.esm.js`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, File] = {}
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.is_file() and path.suffix in TYPES:
                body = path.read_bytes()
                etag = hashlib.blake2b(body, digest_size=12).hexdigest()
                self._files[path.relative_to(folder).as_posix()] = File(body, TYPES[path.suffix], f'"{etag}"')

    async def index(self, doors: Doors, asking: Asking) -> web.Response:
        return self._serve("index.html", asking.request)

    async def asset(self, doors: Doors, asking: Asking) -> web.Response:
        return self._serve(asking.path["path"], asking.request)

    def _serve(self, name: str, request: web.Request) -> web.Response:
        file = self._files.get(name)
        if file is None:
            raise Problem(404, "Not Found", "the page has no such file")
        # no-cache: kept, but asked for each time, so that a new version is seen at once.
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        charset = "utf-8" if file.content_type.startswith("text/") else None
        return web.Response(body=file.body, content_type=file.content_type, charset=charset, headers=headers)
