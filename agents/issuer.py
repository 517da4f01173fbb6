"""Issuer: who stands behind an OIDC token, with the issuer's keys fetched within bounds and kept for a while.

    token -> kid -> a key that is here -> ops/oidc.py
               \\-> unknown, or the set is old: fetched again, at most twice a minute -> not there: not taken

The address is a setting.  Nothing that a token says is ever fetched.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from milepost.ops import oidc
from milepost.ops.access import Principal
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError

log = logging.getLogger(__name__)

FRESH_S: Final = 600.0
"""How long a set of keys is used before it is fetched again, seconds."""
STALE_S: Final = 24 * 3600.0
"""How long it is used while it cannot be fetched."""
PAUSE_S: Final = 30.0
"""Between two fetches at least: a key that nobody knows must not make the worker ask for it each time."""
FETCH_S: Final = 5.0


class Unready(Exception):
    """The issuer's keys are not here, and cannot be had now."""


class Issuer:
    """See the module.  Raises DeclarationError for settings that do not hold."""

    def __init__(self, settings: Settings) -> None:
        try:
            import joserfc
        except ImportError as error:
            raise DeclarationError(
                "MILEPOST_OIDC_ISSUER needs the package joserfc; fix: pip install joserfc"
            ) from error
        assert joserfc is not None
        oidc.meanings(settings.oidc_map)
        where = urlsplit(settings.oidc_keys)
        if where.scheme and not (where.scheme == "https" or (where.scheme == "http" and _loopback(where.hostname))):
            raise DeclarationError("MILEPOST_OIDC_KEYS is a file, or an address that begins with https://")
        self._settings = settings
        self._remote = bool(where.scheme)
        self._keys: Mapping[str, Any] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._turn = asyncio.Lock()

    async def principal(self, text: str, now_ms: int) -> Principal:
        """Who comes with a token.  Raises oidc.NotTaken, Unready."""
        kid = oidc.kid_of(text, self._settings)
        key = await self._key(kid)
        if key is None:
            raise oidc.NotTaken("the issuer has no such key")
        return oidc.principal(text, key, self._settings, now_ms)

    async def _key(self, kid: str) -> Any:
        now = time.monotonic()
        if kid not in self._keys or now - self._fetched_at > FRESH_S:
            async with self._turn:
                if (kid not in self._keys or now > self._fetched_at + FRESH_S) and now - self._tried_at > PAUSE_S:
                    await self._fetch()
        if time.monotonic() - self._fetched_at > STALE_S:
            raise Unready("the issuer's keys cannot be had")
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        self._tried_at = time.monotonic()
        try:
            body = await self._download() if self._remote else await asyncio.to_thread(self._read)
            self._keys = oidc.load_keys(body, self._settings.oidc_algorithm)
            self._fetched_at = time.monotonic()
        except (aiohttp.ClientError, OSError, TimeoutError, DeclarationError) as error:
            log.warning("the issuer's keys could not be read anew: %s", error or type(error).__name__)

    def _read(self) -> bytes:
        with Path(self._settings.oidc_keys).expanduser().open("rb") as file:
            return file.read(oidc.KEYS_BYTES_MAX + 1)

    async def _download(self) -> bytes:
        # No redirect, no proxy, no cookie: the address of the settings answers, or nobody does.
        timeout = aiohttp.ClientTimeout(total=FETCH_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            headers = {"Accept": "application/json"}
            async with session.get(self._settings.oidc_keys, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise DeclarationError(f"the address of the issuer's keys answered {response.status}, not 200")
                pieces, size = list[bytes](), 0
                async for piece in response.content.iter_chunked(16 * 1024):
                    pieces.append(piece)
                    if (size := size + len(piece)) > oidc.KEYS_BYTES_MAX:
                        break
                return b"".join(pieces)


def _loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
