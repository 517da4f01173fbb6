"""Admission: the one door to every call.  Who comes, from where, and whether what they come with opens this route.

    request -> Host -> Origin, Sec-Fetch-Site -> the route's role -> open?
                -> Authorization: API token | MILEPOST_TOKEN | pass | OIDC     or the page's cookie
                -> role -> organisation -> Principal, with the request; the answer of a change is written into the audit

The doors stand open on the loopback until somebody shuts them: by listening elsewhere, by a name for others
(MILEPOST_HOSTS), by MILEPOST_TOKEN, by an issuer, or by the first token that is made.  A route that names no role needs
`operate`, one whose request names no organisation is closed to a token of one organisation: what is forgotten is shut.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from milepost.agents.issuer import Issuer, Unready
from milepost.agents.views.openapi import EVERYBODY, Route
from milepost.agents.views.problems import STREAM, Problem
from milepost.ops import oidc
from milepost.ops.access import ALL, OPEN, Book, Principal, Role
from milepost.ops.settings import Settings

SAFE: Final = ("GET", "HEAD")
STRANGER: Final = Principal(name="", kind="open", roles=frozenset())
"""Whoever asks for what is open to everybody, where the doors are shut."""


class Admission:
    """See the module.  table: every route of the worker."""

    def __init__(self, settings: Settings, book: Book, table: Mapping[tuple[str, str], Route]) -> None:
        self.book = book
        self.cookie = f"milepost_session_{settings.port}"  # a browser keeps one jar for all ports of a host
        self._settings = settings
        self._table = table
        self._issuer = Issuer(settings) if settings.oidc_issuer else None
        self._hosts = _hosts(settings)

    @property
    def shut(self) -> bool:
        """Whether a token is asked for."""
        settings = self._settings
        return bool(settings.exposed or settings.own_token or self._issuer is not None or self.book.ever)

    async def admit(self, request: web.Request) -> Principal:
        """Who sent the request, if this route is open to them.  Raises Problem: 421, 403, 401, 503."""
        self._check_host(request)
        self._check_page(request)
        route = self._route(request)
        if route is not None and route.role == EVERYBODY:
            return STRANGER if self.shut else OPEN
        if not self.shut:
            if not self.book.ready:
                raise Problem(503, "the worker starts", "it has not read yet whether a token is asked for")
            return OPEN
        who = await self.known(request)
        if route is None:
            return who
        needed = route.role or Role.OPERATE
        if needed not in who.roles:
            fix = f"a token with --role {needed}"
            raise Problem(403, "the token's role does not open this", f"{needed} is needed", fix=fix)
        if who.org is not None and not route.of_one:
            raise Problem(
                403, "this is about all organisations", f"the token is for {who.org}", fix="a token without --org"
            )
        return who

    async def known(self, request: web.Request) -> Principal:
        """Who shows what they have: a bearer token, or the page's cookie.  Raises Problem."""
        kind, _, text = request.headers.get("Authorization", "").partition(" ")
        if text:
            who = await self.bearer(text.strip()) if kind.lower() == "bearer" else None
        elif cookie := request.cookies.get(self.cookie, ""):
            self._check_same_page(request)
            who = self._session(cookie)
        else:
            who = None
        if who is None:
            raise Problem(401, "a token is needed", "Authorization: Bearer …, a token that holds")
        return who

    async def bearer(self, text: str) -> Principal | None:
        """Who comes with a token; None: it opens nothing.  Raises Problem."""
        settings, now_ms = self._settings, _now_ms()
        if settings.own_token and hmac.compare_digest(text.encode(errors="replace"), settings.own_token.encode()):
            return Principal(name="worker", kind="static", roles=ALL)
        if self.book.keys.passed(text, now_ms):
            return Principal(name="local", kind="pass", roles=ALL)
        if self._issuer is not None and oidc.is_jwt(text):
            try:
                return await self._issuer.principal(text, now_ms)
            except oidc.NotTaken as error:
                raise Problem(401, "the token is not taken", str(error), fix="ask the issuer for another") from error
            except Unready as error:
                raise Problem(503, "tokens cannot be checked now", str(error)) from error
        if not self.book.ready:
            raise Problem(503, "the worker starts", "it has not read the tokens yet")
        return self.book.find(text, now_ms)

    def holds(self, who: Principal) -> bool:
        """Whether somebody who came in may stay: asked of open streams, again and again."""
        now_ms = _now_ms()
        if who.until_ms is not None and now_ms >= who.until_ms:
            return False
        if who.kind == "open":
            return not self.shut
        return not who.token or self.book.holds(who.token, now_ms)

    # -- where a request comes from

    def _check_host(self, request: web.Request) -> None:
        """A page elsewhere reaches the worker through its reader's browser when its name is bound to our address.

        No such name is among ours, and an address cannot be bound anew."""
        host = _host_of(request.headers.get("Host", ""))
        if host in self._hosts or _is_loopback(host) or (not self._settings.loopback and _is_address(host)):
            return
        raise Problem(
            421, "this host is not served here", "Host must be a name of this worker",
            fix=None if not self._settings.exposed else "MILEPOST_HOSTS of the worker names what it is reached by",
        )  # fmt: skip

    def _check_page(self, request: web.Request) -> None:
        """No page but ours writes here or holds a stream."""
        if request.method in SAFE and request.path != STREAM:
            return
        what = "listen" if request.path == STREAM else "write"
        origin = request.headers.get("Origin")
        if origin is not None and not _same_origin(origin, request.headers.get("Host", "")):
            raise Problem(403, f"a foreign page may not {what} here", "Origin must be the worker's own")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise Problem(403, f"a foreign page may not {what} here", "Sec-Fetch-Site must be same-origin")

    def _check_same_page(self, request: web.Request) -> None:
        """A cookie comes along by itself, from other ports of this host too: only our own page may use it."""
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise Problem(403, "a foreign page may not use this session", "Sec-Fetch-Site must be same-origin")
        if request.method not in SAFE and "Origin" not in request.headers:
            raise Problem(403, "a session writes from the worker's page alone", "Origin is missing")

    # -- what they come with

    def _session(self, cookie: str) -> Principal | None:
        now_ms = _now_ms()
        who = self.book.keys.session(cookie, now_ms)
        if who is None or not who.token:
            return who
        now = self.book.principal(who.token, now_ms)  # what the token may do now, not when the page signed in
        if now is None and not self.book.ready:
            raise Problem(503, "the worker starts", "it has not read the tokens yet")
        return now

    def _route(self, request: web.Request) -> Route | None:
        """What answers; None: nothing does, it will be a 404 or 405."""
        resource = request.match_info.route.resource if request.match_info is not None else None
        if resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        found = self._table.get((method, resource.canonical))
        found = found or next((one for (_, path), one in self._table.items() if path == resource.canonical), None)
        if found is None:
            raise Problem(403, "nobody said whom this is open to", "the call is in no table of routes")
        return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _hosts(settings: Settings) -> frozenset[str]:
    """The names under which the worker is reached."""
    names = {"localhost", *settings.hosts}
    if not settings.loopback:
        names |= {settings.host.lower(), socket.gethostname().lower()}
    if settings.peer:
        names.add(_host_of(urlsplit(settings.peer).netloc))
    return frozenset(names)


def _host_of(header: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
