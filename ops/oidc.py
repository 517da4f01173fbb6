"""OIDC: bearer tokens (JWT) of one issuer, checked with joserfc, which is imported only where an issuer is set.

    token -> header: algorithm, type, key id -> the issuer's key -> signature -> issuer, audience, times -> Principal

There is exactly one algorithm, and it is the settings' to say, never the token's: that shuts out `none`, and a public
key taken for an HMAC key.  A key comes from the issuer's own set by its id and fits the algorithm's kind; an address or
key inside a token is never looked at.  Sources: RFC 7519, RFC 8725 (best practices), RFC 9068 (`typ` of access tokens).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import orjson

from milepost.ops.access import Principal, Role
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError

LEEWAY_S: Final = 60
"""How much the issuer's clock may differ, seconds."""
LIFE_S_MAX: Final = 24 * 3600
"""The longest life of a token, seconds: nobody can take one back, so a long one is not taken."""
TOKEN_BYTES_MAX: Final = 8_000
KID_MAX: Final = 256
KEYS_MAX: Final = 50
KEYS_BYTES_MAX: Final = 64 * 1024
RSA_BITS_MIN: Final = 2_048
KINDS: Final[Mapping[str, str]] = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC"}
"""Algorithm -> the kind of key that it takes."""
NEVER: Final = ("jku", "jwk", "x5u", "x5c", "crit", "b64")
"""What a header must not hold: it would say where the key lies, or how else to read the token."""


class NotTaken(Exception):
    """A token that opens nothing.  The text is safe to show: it holds nothing of the token."""


def is_jwt(text: str) -> bool:
    return text.count(".") == 2


def load_keys(body: bytes, algorithm: str) -> Mapping[str, Any]:
    """kid -> key, of those in a set (JWKS) that fit the algorithm.  Raises DeclarationError."""
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry

    if len(body) > KEYS_BYTES_MAX:
        raise DeclarationError(f"the issuer's key set has more than {KEYS_BYTES_MAX} bytes")
    try:
        told = orjson.loads(body)
        rows = told["keys"]
        if not isinstance(rows, list) or len(rows) > KEYS_MAX:
            raise DeclarationError(f"the issuer's key set holds a list `keys` of at most {KEYS_MAX}")
        keys: dict[str, Any] = {}
        for row in rows:
            if not _fits(row, algorithm):
                continue
            public = {name: one for name, one in row.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
            key = JWKRegistry.import_key(public)
            if KINDS[algorithm] == "RSA" and getattr(key.raw_value, "key_size", 0) < RSA_BITS_MIN:
                continue
            if row["kid"] in keys:
                raise DeclarationError(f"the issuer's key set names {row['kid'][:KID_MAX]!r} twice")
            keys[row["kid"]] = key
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, JoseError) as error:
        raise DeclarationError(f"the issuer's key set is none: {type(error).__name__}") from error
    if not keys:
        raise DeclarationError(f"the issuer's key set has no key with a kid for {algorithm}")
    return keys


def kid_of(text: str, settings: Settings) -> str:
    """The id of the key that the token says it is signed with, its header checked.  Raises NotTaken."""
    if len(text) > TOKEN_BYTES_MAX or not is_jwt(text) or not text.isascii():
        raise NotTaken("it is no token that is taken here")
    header = _header(text)
    if header.get("alg") != settings.oidc_algorithm:
        raise NotTaken(f"it is signed otherwise than by {settings.oidc_algorithm}")
    if str(header.get("typ", "")).lower().removeprefix("application/") != settings.oidc_type.lower():
        raise NotTaken(f"its type is not {settings.oidc_type}")
    if any(name in header for name in NEVER):
        raise NotTaken("its header says where a key lies, or how else to read it")
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= KID_MAX:
        raise NotTaken("it names no key")
    return kid


def principal(text: str, key: Any, settings: Settings, now_ms: int) -> Principal:
    """Who comes with a token that `key` has signed.  Raises NotTaken."""
    from joserfc import jwt
    from joserfc.errors import JoseError

    now_s = now_ms // 1000
    registry = jwt.JWTClaimsRegistry(
        now=now_s,
        leeway=LEEWAY_S,
        iss={"essential": True, "value": settings.oidc_issuer},
        aud={"essential": True, "value": settings.oidc_audience},
        exp={"essential": True},
        iat={"essential": True},
        sub={"essential": True},
    )
    try:
        claims = jwt.decode(text, key, algorithms=[settings.oidc_algorithm]).claims
        registry.validate(claims)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise NotTaken(f"it does not hold: {type(error).__name__}") from error
    if claims["exp"] - claims["iat"] > LIFE_S_MAX:
        raise NotTaken(f"it lives longer than {LIFE_S_MAX // 3600} hours")
    if not 0 < len(claims["sub"]) <= KID_MAX:
        raise NotTaken("its subject is no name")
    return Principal(
        name=claims["sub"], kind="issuer", roles=_roles(claims, settings), org=_org(claims, settings),
        until_ms=int(claims["exp"] * 1000),
    )  # fmt: skip


def meanings(text: str) -> Mapping[str, frozenset[Role]]:
    """`viewers=read admins=read+write` as a mapping; empty: our own names.  Raises DeclarationError."""
    if not text:
        return {one.value: frozenset({one}) for one in Role}
    found = {}
    for pair in text.split():
        word, equals, roles = pair.partition("=")
        try:
            found[word] = frozenset(Role(one) for one in roles.split("+"))
        except ValueError:
            equals = ""
        if not (word and equals):
            raise DeclarationError(f"MILEPOST_OIDC_MAP: {pair!r}; expected word=role+role, roles {', '.join(Role)}")
    return found


def _roles(claims: Mapping[str, Any], settings: Settings) -> frozenset[Role]:
    told = claims.get(settings.oidc_roles)
    words = told.split() if isinstance(told, str) else told if isinstance(told, list) else []
    known = meanings(settings.oidc_map)
    return frozenset(role for one in words if isinstance(one, str) for role in known.get(one, ()))


def _org(claims: Mapping[str, Any], settings: Settings) -> str | None:
    if not settings.oidc_org:
        return None
    org = claims.get(settings.oidc_org)
    if not isinstance(org, str) or not org:
        raise NotTaken(f"its claim {settings.oidc_org} names no organisation")
    return org


def _fits(row: Any, algorithm: str) -> bool:
    """Whether a key of the set may check signatures by the algorithm."""
    if not isinstance(row, dict):
        return False
    kid, kind = row.get("kid"), row.get("kty")
    return (
        isinstance(kid, str)
        and 0 < len(kid) <= KID_MAX
        and kind == KINDS[algorithm]
        and row.get("use") in (None, "sig")
        and row.get("alg") in (None, algorithm)
        and (kind != "EC" or row.get("crv") == "P-256")
    )


def _header(text: str) -> dict[str, Any]:
    try:
        part = text.partition(".")[0]
        found = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError) as error:
        raise NotTaken("its header cannot be read") from error
    if not isinstance(found, dict):
        raise NotTaken("its header cannot be read")
    return found
