"""Access: who may do what.  Tokens, the book of them, and what else opens a door; time is handed in.

    tokens create -> Access record, sealed -> topic `access` -> Book, with every worker
    Authorization: Bearer mp_ID_PRIVATE   -> Book.find  -> Principal
    a pass of whoever has the secret      -> Doorkeys.passed (the commands on the worker's machine)
    a page's cookie                       -> Doorkeys.session

A token's private part is 256 random bits, so nobody guesses it and a slow hash would only slow the worker: what is kept
is a hash keyed with the deployment's secret.  The topic alone neither opens a door nor lets a guess be checked, and a
record that somebody else writes into it has no seal.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

import orjson

from milepost.ops.settings import Settings
from milepost.schemas.errors import ContractError, DeclarationError
from milepost.schemas.serde import wire

TOKENS_MAX: Final = 10_000
"""Tokens of a deployment at most, with those that are revoked."""
NAME_MAX: Final = 128
PASS_S: Final = 60
"""How long a pass of a command opens, seconds.  Each request carries a new one."""
SESSION_S: Final = 12 * 3600
"""How long a page stays signed in at most, seconds."""
COOKIE_MAX: Final = 2_048

_TOKEN: Final = re.compile(r"mp_([0-9a-f]{12})_([a-z2-7]{52})")
_PASS: Final = re.compile(r"mpl_([0-9]{1,12})_([0-9a-f]{64})")

Kind = Literal["open", "token", "static", "pass", "issuer"]
"""How somebody came in: the doors stood open, an API token, MILEPOST_TOKEN, a pass of this machine, OIDC."""


class Role(StrEnum):
    """What a token may do.  None implies another."""

    READ = "read"
    WRITE = "write"
    OPERATE = "operate"


ALL: Final = frozenset(Role)


class Foreign(Exception):
    """What is asked for belongs to another organisation than the token does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who came in.

    org:   the only organisation that they reach; None: all
    token: the public part of their API token;  until_ms: when they have to show it again
    """

    name: str
    kind: Kind
    roles: frozenset[Role]
    org: str | None = None
    token: str = ""
    until_ms: int | None = None


OPEN: Final = Principal(name="local", kind="open", roles=ALL)
"""Everybody on this machine, while the doors stand open."""


def own(who: Principal | None, org: str | None) -> str | None:
    """The organisation that a request means: theirs where it names none.  Raises Foreign."""
    if who is None or who.org is None or org == who.org:
        return org
    if org is not None:
        raise Foreign(f"the token is for {who.org}")
    return who.org


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An API token as the log knows it."""

    id: str
    name: str
    roles: frozenset[Role]
    org: str | None
    verifier: bytes
    made_ms: int
    expires_ms: int | None
    by: str = ""


class Doorkeys:
    """The keys that follow from the deployment's secret, each for one purpose."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.secret()
        self._port = settings.port
        self._verify, self._seal, self._pass, self._session = (
            hashlib.blake2b(f"milepost doors: {what}".encode(), key=secret[:64]).digest()
            for what in ("verify", "seal", "pass", f"session {settings.token}")
        )

    def verifier(self, id: str, private: str) -> bytes:
        return hashlib.blake2b(f"{id}_{private}".encode(), key=self._verify, digest_size=32).digest()

    def seal(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """An Access record with its seal."""
        plain = {**fields, "seal": b""}
        made = hashlib.blake2b(wire("Access").encode(plain), key=self._seal, digest_size=32).digest()
        return {**plain, "seal": made}

    def sealed(self, fields: Mapping[str, Any]) -> bool:
        return hmac.compare_digest(bytes(fields["seal"]), self.seal(fields)["seal"])

    # -- a pass: that somebody can read the secret, for one request

    def make_pass(self, now_ms: int) -> str:
        until = now_ms // 1000 + PASS_S
        return f"mpl_{until}_{self._passing(until)}"

    def passed(self, text: str, now_ms: int) -> bool:
        found = _PASS.fullmatch(text)
        if found is None or not 0 <= int(found[1]) - now_ms // 1000 <= PASS_S:
            return False
        return hmac.compare_digest(found[2], self._passing(int(found[1])))

    def _passing(self, until: int) -> str:
        # The port is in it: a stranger who listens on another one gets a pass that opens nothing.
        return hashlib.blake2b(f"{self._port} {until}".encode(), key=self._pass, digest_size=32).hexdigest()

    # -- a session: what a page's cookie says

    def make_session(self, who: Principal, now_ms: int) -> tuple[str, int]:
        """(cookie, until_ms) for somebody who has shown a token."""
        until_ms = min(now_ms + SESSION_S * 1000, who.until_ms if who.until_ms is not None else 2**62)
        told = [who.kind, who.name, sorted(who.roles), who.org, who.token, until_ms]
        body = base64.urlsafe_b64encode(orjson.dumps(told)).rstrip(b"=")
        return f"{body.decode()}.{self._sessing(body)}", until_ms

    def session(self, cookie: str, now_ms: int) -> Principal | None:
        """Who signed in; None: nobody whose session holds.  A token's own end is the book's to know."""
        body, _, mac = cookie.partition(".")
        if len(cookie) > COOKIE_MAX or not cookie.isascii():
            return None
        if not hmac.compare_digest(mac, self._sessing(body.encode())):
            return None
        kind, name, roles, org, token, until_ms = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if now_ms >= until_ms:
            return None
        known = frozenset(Role(one) for one in roles)
        return Principal(name=name, kind=kind, roles=known, org=org, token=token, until_ms=until_ms)

    def _sessing(self, body: bytes) -> str:
        return hashlib.blake2b(body, key=self._session, digest_size=32).hexdigest()


@dataclass(slots=True)
class Book:
    """The tokens of a deployment, a fold of `access`: the same whatever the order of its records.

    ready:   whether the topic has been read to the end it had at the start
    revoked: id -> when, and by whom
    changed: called after each record: somebody may have lost what they had
    passed_over: records without a right seal
    """

    keys: Doorkeys
    ready: bool = True
    tokens: dict[str, Token] = field(default_factory=dict)
    revoked: dict[str, tuple[int, str]] = field(default_factory=dict)
    changed: list[Callable[[], None]] = field(default_factory=list)
    passed_over: int = 0

    def add(self, value: bytes | None) -> None:
        """Take a record of the topic.  Raises ContractError for one that is not ours, or has no right seal."""
        try:
            fields = wire("Access").decode(value or b"")
            if not self.keys.sealed(fields):
                raise ContractError("contract_violation", "the seal is not of this deployment")
            self.add_fields(fields)
        except (ContractError, ValueError) as error:
            self.passed_over += 1
            raise ContractError("contract_violation", f"no record of a token: {error}") from error

    def add_fields(self, fields: Mapping[str, Any]) -> None:
        """Take the fields of a record whose seal is right."""
        roles = frozenset(Role(one) for one in fields["roles"])
        if fields["what"] == "revoked":
            self.revoked.setdefault(fields["id"], (fields["at_ms"], fields["by"]))
        else:
            self.tokens[fields["id"]] = Token(
                id=fields["id"], name=fields["name"], roles=roles, org=fields["org"], verifier=fields["verifier"],
                made_ms=fields["at_ms"], expires_ms=fields["expires_ms"], by=fields["by"],
            )  # fmt: skip
        for tell in self.changed:
            tell()

    @property
    def ever(self) -> bool:
        """Whether a token was ever made: from then on the doors are shut, also when the last one is revoked."""
        return bool(self.tokens)

    def holds(self, id: str, now_ms: int) -> bool:
        token = self.tokens.get(id)
        return token is not None and id not in self.revoked and (token.expires_ms is None or now_ms < token.expires_ms)

    def find(self, text: str, now_ms: int) -> Principal | None:
        """Who comes with this token; None: it is none of ours, or holds no more."""
        found = _TOKEN.fullmatch(text)
        token = self.tokens.get(found[1]) if found is not None else None
        if found is None or token is None:
            return None
        right = hmac.compare_digest(token.verifier, self.keys.verifier(found[1], found[2]))
        return self.principal(token.id, now_ms) if right else None

    def principal(self, id: str, now_ms: int) -> Principal | None:
        """The bearer of a token of this id, with what it may do now."""
        token = self.tokens.get(id)
        if token is None or not self.holds(id, now_ms):
            return None
        return Principal(
            name=token.name, kind="token", roles=token.roles, org=token.org, token=id, until_ms=token.expires_ms
        )


def is_token(text: str) -> bool:
    """Whether it looks like an API token, so that it is never taken for a worker's own MILEPOST_TOKEN."""
    return text.startswith(("mp_", "mpl_"))


def make(
    keys: Doorkeys, *, name: str, roles: frozenset[Role], org: str | None, days: int | None, now_ms: int, by: str
) -> tuple[str, dict[str, Any]]:
    """(the token, its sealed record).  The token is nowhere else: who loses it makes another."""
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise DeclarationError(f"a token's name has 1 to {NAME_MAX} printable characters, {name[:NAME_MAX]!r} came")
    if not roles:
        raise DeclarationError(f"a token without a role opens nothing; fix: --role {' or '.join(Role)}")
    id = secrets.token_hex(6)
    private = base64.b32encode(secrets.token_bytes(32)).decode().lower().rstrip("=")
    record = {
        "id": id, "what": "made", "name": name, "roles": sorted(roles), "org": org,
        "verifier": keys.verifier(id, private), "at_ms": now_ms,
        "expires_ms": None if days is None else now_ms + days * 86_400_000, "by": by[:NAME_MAX],
    }  # fmt: skip
    return f"mp_{id}_{private}", keys.seal(record)


def revoke(keys: Doorkeys, token: Token, *, now_ms: int, by: str) -> dict[str, Any]:
    """The sealed record that ends a token."""
    record = {
        "id": token.id, "what": "revoked", "name": token.name, "roles": sorted(token.roles), "org": token.org,
        "verifier": b"", "at_ms": now_ms, "expires_ms": token.expires_ms, "by": by[:NAME_MAX],
    }  # fmt: skip
    return keys.seal(record)


def bearer(settings: Settings) -> str:
    """What a command shows at the door: MILEPOST_TOKEN, else a pass where this machine has the secret, else nothing."""
    if settings.token:
        return settings.token
    if settings.secret_text or settings.secret_file.exists():
        return Doorkeys(settings).make_pass(time.time_ns() // 1_000_000)
    return ""
