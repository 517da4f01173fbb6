"""OIDC: the tokens of an issuer, and what attackers make of them.

keys of the test -> JWKS (a file, or an address of the test's) -> Issuer -> Principal, or NotTaken
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from milepost.agents import issuer
from milepost.agents.issuer import Issuer, Unready
from milepost.ops import oidc
from milepost.ops.access import Principal, Role
from milepost.ops.oidc import NotTaken
from milepost.ops.settings import Settings, read_settings
from milepost.schemas.errors import DeclarationError
from tests.agents.test_stream import Stream
from tests.agents.test_views import VALUE, Tables, Worker, filled, served

RSA = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
STRANGER = RSAKey.generate_key(2048, {"kid": "one"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
NOW = int(time.time())
CLAIMS: dict[str, Any] = {
    "iss": "https://issuer.example.org", "aud": "milepost", "sub": "ann", "iat": NOW, "exp": NOW + 3600, "roles": ["read"],
}  # fmt: skip


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": [one.as_dict(private=False) for one in keys]}).encode()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "keys.json").write_bytes(jwks(RSA, OTHER, EC))
    return Settings(
        home=tmp_path, oidc_issuer=CLAIMS["iss"], oidc_audience="milepost", oidc_keys=str(tmp_path / "keys.json")
    )


def made(key: Any = RSA, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    told = {"alg": "RS256", "typ": "at+jwt", "kid": "one", **(header or {})}
    kept = {name: one for name, one in {**CLAIMS, **claims}.items() if one is not None}
    algorithms = ["RS256", "PS256", "ES256", "HS256", "RS512", "none"]
    return jwt.encode(
        {name: one for name, one in told.items() if one is not None}, kept, key, algorithms, default_type=None
    )


def part(told: Any) -> str:
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def who(settings: Settings, text: str) -> Principal:
    async def ask() -> Principal:
        return await Issuer(settings).principal(text, NOW * 1000)

    return asyncio.run(ask())


def test_a_token_of_the_issuer_opens_what_its_claims_say(settings: Settings) -> None:
    """Subject, roles by their meaning, organisation and end come from the claims that the settings name."""
    assert who(settings, made()) == Principal(
        name="ann", kind="issuer", roles=frozenset({Role.READ}), until_ms=(NOW + 3600) * 1000
    )
    assert who(settings, made(OTHER, {"kid": "two", "typ": "application/at+JWT"}, aud=["x", "milepost"])).name == "ann"
    assert who(settings, made(roles="read operate none")).roles == {Role.READ, Role.OPERATE}
    for roles in (None, [], 7, {"read": 1}, ["Read", 7, None]):
        assert who(settings, made(roles=roles)).roles == frozenset()
    mapped = replace(
        settings, oidc_roles="groups", oidc_map="viewers=read admins=read+write+operate", oidc_org="tenant"
    )
    got = who(mapped, made(groups=["admins", "read"], tenant="acme"))
    assert got.roles == frozenset(Role) and got.org == "acme"
    assert who(mapped, made(groups=["read"], tenant="acme")).roles == frozenset()
    for tenant in (None, "", 7, ["acme"]):
        with pytest.raises(NotTaken, match="tenant"):
            who(mapped, made(tenant=tenant))
    curve = replace(settings, oidc_algorithm="ES256")
    assert who(curve, made(EC, {"alg": "ES256", "kid": "ec"})).name == "ann"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"}, {"iss": None}, {"iss": 7}, {"iss": ["https://issuer.example.org"]},
        {"iss": "https://issuer.example.org/"}, {"aud": "other"}, {"aud": None}, {"aud": ["a", "b"]}, {"aud": {"milepost": 1}},
        {"aud": []}, {"exp": NOW - 61}, {"exp": None}, {"exp": str(NOW + 60)}, {"exp": True}, {"exp": 10**400},
        {"nbf": NOW + 61}, {"nbf": "soon"}, {"iat": NOW + 61}, {"iat": NOW + 10**9, "exp": NOW + 10**9 + 60}, {"iat": None},
        {"iat": NOW - 25 * 3600}, {"exp": NOW + 25 * 3600}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 257},
    ],
    ids="-".join,
)  # fmt: skip
def test_claims_that_do_not_hold_open_nothing(settings: Settings, claims: dict[str, Any]) -> None:
    """Another issuer or audience, times that are past, ahead, missing or no times, a life beyond a day, no subject."""
    with pytest.raises(NotTaken):
        who(settings, made(**claims))


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"}, {"typ": None}, {"typ": ""}, {"typ": "id+jwt"}, {"kid": None}, {"kid": "three"}, {"kid": ""},
        {"kid": "../../etc/passwd"}, {"kid": "two"}, {"kid": "ec"}, {"kid": "x" * 300}, {"kid": "one\0"}, {"kid": "' OR 1=1"},
        {"jku": "http://127.0.0.1/keys"}, {"x5u": "http://127.0.0.1/keys"}, {"jwk": STRANGER.as_dict(private=False)},
        {"crit": ["exp"]}, {"b64": False, "crit": ["b64"]},
    ],
    ids="-".join,  # a key of the process is no name: every test process names a test the same
)  # fmt: skip
def test_headers_that_say_otherwise_open_nothing(settings: Settings, header: dict[str, Any]) -> None:
    """Another type, no key or another one's, an address or a key inside the token, how else to read it."""
    text = made()
    told = {"alg": "RS256", "typ": "at+jwt", "kid": "one", **header}
    first = part({name: one for name, one in told.items() if one is not None})
    signing = f"{first}.{text.split('.')[1]}".encode()
    signature = RSA.private_key.sign(signing, padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(NotTaken):
        who(settings, f"{signing.decode()}.{part(signature)}")


def test_the_helper_that_forges_headers_signs_rightly(settings: Settings) -> None:
    """Positive control: with nothing changed in the header, a token made by that way is taken."""
    signing = f"{part({'alg': 'RS256', 'typ': 'at+jwt', 'kid': 'one'})}.{made().split('.')[1]}"
    signature = RSA.private_key.sign(signing.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert who(settings, f"{signing}.{part(signature)}").name == "ann"


def test_no_algorithm_but_the_one_of_the_settings(settings: Settings) -> None:
    """`none` in every spelling, a public key as an HMAC key, and other algorithms of the same key open nothing."""
    body = made().split(".")[1]
    for name in ("none", "None", "NONE", "nOnE", "", None, ["RS256"], {"RS256": 1}, 0):
        header = part({"alg": name, "typ": "at+jwt", "kid": "one"})
        for signature in ("", made().split(".")[2]):
            with pytest.raises(NotTaken):
                who(settings, f"{header}.{body}.{signature}")
    with pytest.raises(NotTaken):
        who(settings, f"{part({'typ': 'at+jwt', 'kid': 'one'})}.{body}.")
    public = RSA.as_pem(private=False)
    for secret in (public, public.strip(), jwks(RSA), RSA.as_der(private=False), b""):
        header = part({"alg": "HS256", "typ": "at+jwt", "kid": "one"})
        mac = hmac.new(secret, f"{header}.{body}".encode(), hashlib.sha256).digest()
        with pytest.raises(NotTaken):
            who(settings, f"{header}.{body}.{part(mac)}")
    for other in ("PS256", "RS512"):
        with pytest.raises(NotTaken, match="RS256"):
            who(settings, made(header={"alg": other}))


def test_what_is_no_token_opens_nothing(settings: Settings) -> None:
    """A changed body, another's signature, halves, nestings, huge and broken ones are not taken, and nothing breaks."""
    header, body, signature = made().split(".")
    changed = part({**CLAIMS, "roles": ["operate"]})
    deep = part(b"[" * 3000 + b"]" * 3000)
    for text in (
        f"{header}.{changed}.{signature}", made(STRANGER), f"{header}.{body}.", f"{header}.{body}", f"..{signature}", "..",
        f"{header}.{body}.{signature}.{signature}.x", f"{header}.{body}.{signature[:-4]}", f"{deep}.{body}.{signature}",
        f"{header}.{part(b'[]')}.{signature}", f"é.{body}.{signature}", f"{header}.{body}.{'A' * 9000}", f"%.{body}.%",
        f"{part([])}.{body}.{signature}", f"{part(b'null')}.{body}.{signature}", f"{part(b'{')}.{body}.{signature}",
    ):  # fmt: skip
        with pytest.raises(NotTaken) as refused:
            who(settings, text)
        assert body[:20] not in str(refused.value)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_keys_that_do_not_fit_are_not_used() -> None:
    """Secrets, private halves, short or foreign keys, keys for encryption or without an id check no signature."""
    short = {**RSAKey.generate_key(1024, {"kid": "short"}).as_dict(private=False)}
    secret = OctKey.import_key("a secret of thirty-two characters").as_dict(private=True) | {"kid": "secret"}
    nameless = {name: one for name, one in STRANGER.as_dict(private=False).items() if name != "kid"}
    rows = [short, secret, nameless, {**OTHER.as_dict(private=False), "use": "enc"}, EC.as_dict(private=False)]
    with pytest.raises(DeclarationError, match="no key with a kid for RS256"):
        oidc.load_keys(json.dumps({"keys": rows}).encode(), "RS256")
    assert set(oidc.load_keys(json.dumps({"keys": [*rows, RSA.as_dict(private=True)]}).encode(), "RS256")) == {"one"}
    assert set(oidc.load_keys(jwks(RSA, EC), "ES256")) == {"ec"}
    two_of_one = [RSA.as_dict(private=False), STRANGER.as_dict(private=False)]
    for body in (
        b"",
        b"[]",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": []}',
        b" " * 65537,
        json.dumps({"keys": two_of_one}).encode(),
    ):
        with pytest.raises(DeclarationError, match="key set"):
            oidc.load_keys(body, "RS256")


class Provider(ThreadingHTTPServer):
    """An address of keys that can be made to misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.asked = 0
        self.answer: tuple[int, Mapping[str, str], bytes] = (200, {}, jwks(RSA))


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Provider)
        self.server.asked += 1
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, told in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, told)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_keys_are_fetched_within_bounds_and_kept(
    settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set is fetched once, anew for a key that it lacks, not at each token; a failure leaves what was there."""
    remote = replace(settings, oidc_keys=f"http://127.0.0.1:{provider.server_port}/keys")

    async def ask() -> None:
        asking = Issuer(remote)
        for _ in range(3):
            assert (await asking.principal(made(), NOW * 1000)).name == "ann"
        assert provider.asked == 1
        for _ in range(5):
            with pytest.raises(NotTaken, match="no such key"):
                await asking.principal(made(OTHER, {"kid": "two"}), NOW * 1000)
        assert provider.asked == 1
        monkeypatch.setattr(issuer, "PAUSE_S", 0.0)
        provider.answer = (200, {}, jwks(RSA, OTHER))
        assert (await asking.principal(made(OTHER, {"kid": "two"}), NOW * 1000)).name == "ann"
        assert provider.asked == 2
        monkeypatch.setattr(issuer, "FRESH_S", -1.0)
        elsewhere = f"http://127.0.0.1:{provider.server_port}/other"
        for bad in ((302, {"Location": elsewhere}, b""), (500, {}, b""), (200, {}, b"x"), (200, {}, b" " * 10**6)):
            before, provider.answer = provider.asked, bad
            assert (await asking.principal(made(), NOW * 1000)).name == "ann"
            assert provider.asked == before + 1, "a redirect was followed"
        monkeypatch.setattr(issuer, "STALE_S", -1.0)
        with pytest.raises(Unready):
            await asking.principal(made(), NOW * 1000)

    asyncio.run(ask())


def test_settings_of_an_issuer_that_do_not_hold_are_refused(settings: Settings) -> None:
    """Keys by plain http from elsewhere, words that mean no role, and an issuer without audience or keys."""
    for wrong in (
        {"oidc_keys": "http://issuer.example.org/keys"}, {"oidc_keys": "ftp://127.0.0.1/keys"}, {"oidc_map": "admins"},
        {"oidc_map": "admins=root"}, {"oidc_map": "=read"}, {"oidc_map": "a="},
    ):  # fmt: skip
        with pytest.raises(DeclarationError, match="MILEPOST_OIDC"):
            Issuer(replace(settings, **wrong))
    with pytest.raises(DeclarationError, match="MILEPOST_OIDC_AUDIENCE"):
        read_settings({"MILEPOST_OIDC_ISSUER": "https://issuer.example.org", "MILEPOST_OIDC_KEYS": "/k"})


def test_over_http_a_token_of_the_issuer_opens_calls_and_streams(settings: Settings) -> None:
    """The doors are shut by the setting; a token comes in by header or session, and a stream ends with it."""
    worker = Worker(settings, Tables(filled().reader))
    for site in served(worker):
        assert site.get(VALUE).status == 401
        given = {"Authorization": f"Bearer {made()}"}
        assert site.call("GET", VALUE, None, **given).status == 200
        assert site.call("GET", "/v1/digest", None, **given).status == 403
        refused = site.call("GET", VALUE, None, Authorization=f"Bearer {made(aud='x')}")
        assert refused.status == 401 and refused.json["fix"] == "ask the issuer for another"
        cookie = site.call("POST", "/v1/session", None, **given).headers["set-cookie"].partition(";")[0]
        assert site.call("GET", VALUE, None, Cookie=cookie).status == 200
        now = int(time.time())
        short = {"Authorization": f"Bearer {made(iat=now, exp=now + 8)}"}
        with Stream(site.port, ("metric", "departures"), **short) as stream:
            assert (stream.next() or ("",))[0] == "value"
            assert stream.next(20.0) is None and stream.ended and time.time() >= now + 8
