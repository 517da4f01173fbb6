"""Access: tokens, what is kept of them, and what else opens a door."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from milepost.ops import access
from milepost.ops.access import ALL, Book, Doorkeys, Foreign, Principal, Role, bearer, own
from milepost.ops.settings import Settings
from milepost.schemas.errors import ContractError, DeclarationError
from milepost.schemas.serde import wire
from tests.support.doors import DAY_MS, revoking, token

NOW = 1_700_000_000_000


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(Doorkeys(Settings(home=tmp_path)))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_token_opens_what_it_says(book: Book) -> None:
    """Who shows it is known by its name, with its roles and its organisation; a changed letter opens nothing."""
    text = token(book, Role.READ, Role.WRITE, org="acme", name="gateway")
    who = book.find(text, now_ms())
    assert who is not None and (who.name, who.roles, who.org) == ("gateway", {Role.READ, Role.WRITE}, "acme")
    for place in range(len(text)):
        other = "b" if text[place] != "b" else "c"
        assert book.find(text[:place] + other + text[place + 1 :], now_ms()) is None
    for wrong in ("", "mp_", text[:-1], text + "a", text.upper(), f" {text}", "mp_" + "0" * 12 + "_" + "a" * 52):
        assert book.find(wrong, now_ms()) is None


def test_what_is_kept_of_a_token_opens_nothing(book: Book) -> None:
    """Neither the record nor the book holds the private part, or a hash that anyone without the secret can make."""
    text, record = access.make(book.keys, name="n", roles=ALL, org=None, days=1, now_ms=NOW, by="me")
    private = text.split("_")[2]
    assert private.encode() not in wire("Access").encode(record)
    book.add(wire("Access").encode(record))
    assert private not in repr(book) and record["verifier"] == book.keys.verifier(record["id"], private)
    other = Doorkeys(replace(Settings(home=Path("/nowhere")), secret_text="another secret than the first"))
    assert other.verifier(record["id"], private) != record["verifier"]


def test_a_token_ends(book: Book) -> None:
    """It opens nothing from its last moment on, nor from its revocation on, whichever record is read first."""
    old = token(book, Role.READ, days=90, age_days=90)
    assert book.find(old, now_ms()) is None and book.find(old, now_ms() - DAY_MS) is not None
    text = token(book, Role.READ, days=None)
    assert book.find(text, 2**53) is not None
    book.add(revoking(book, text))
    assert book.find(text, now_ms()) is None and book.ever
    records = [wire("Access").encode(one) for one in _made_and_revoked(book)]
    for order in itertools.permutations([*records, records[0]]):  # the first comes again: a replayed record
        fresh = Book(book.keys)
        for value in order:
            fresh.add(value)
        assert not fresh.holds("0" * 12, NOW)


def _made_and_revoked(book: Book) -> list[dict[str, object]]:
    made = {"id": "0" * 12, "what": "made", "name": "n", "roles": ["read"], "org": None, "verifier": b"v" * 32,
            "at_ms": 1, "expires_ms": None, "by": ""}  # fmt: skip
    return [book.keys.seal(made), book.keys.seal({**made, "what": "revoked", "verifier": b""})]


def test_a_record_of_somebody_else_makes_no_token(book: Book, tmp_path: Path) -> None:
    """A record without this deployment's seal, or with a changed field, is passed over and counted."""
    text = token(book, Role.READ)
    one = book.tokens[text.split("_")[1]]
    fields = {"id": one.id, "what": "made", "name": one.name, "roles": ["operate", "read"], "org": None,
              "verifier": one.verifier, "at_ms": one.made_ms, "expires_ms": None, "by": "", "seal": b"s" * 32}  # fmt: skip
    other = Doorkeys(Settings(home=tmp_path / "other"))
    for value in (wire("Access").encode(fields), wire("Access").encode(other.seal(fields)), b"", b"{}", None):
        with pytest.raises(ContractError, match="no record of a token"):
            book.add(value)
    assert book.passed_over == 5
    who = book.find(text, now_ms())
    assert who is not None and who.roles == {Role.READ}


def test_a_name_and_a_role_are_needed(book: Book) -> None:
    """A token without a role or with a name that cannot be printed is refused."""
    for name, roles in (("", ALL), ("a\nb", ALL), ("x" * 129, ALL), ("a", frozenset[Role]())):
        with pytest.raises(DeclarationError, match="a token"):
            access.make(book.keys, name=name, roles=roles, org=None, days=1, now_ms=NOW, by="")


def test_a_pass_is_for_a_minute_and_for_one_port(book: Book, tmp_path: Path) -> None:
    """Who has the secret is let in for a minute; the pass of another port or deployment opens nothing."""
    text = book.keys.make_pass(NOW)
    assert book.keys.passed(text, NOW) and book.keys.passed(text, NOW + 59_000)
    assert not book.keys.passed(text, NOW + 61_000) and not book.keys.passed(text, NOW - 61_000)
    assert not book.keys.passed(text[:-1] + ("0" if text[-1] != "0" else "1"), NOW)
    assert not book.keys.passed("mpl_99999999999_" + text.split("_")[2], NOW)
    for other in (Settings(home=tmp_path, port=6067), Settings(home=tmp_path / "other")):
        assert not book.keys.passed(Doorkeys(other).make_pass(NOW), NOW)


def test_a_session_is_sealed_and_ends(book: Book, tmp_path: Path) -> None:
    """A cookie says who came until it ends; nobody makes one, changes one, or uses it past a changed MILEPOST_TOKEN."""
    who = Principal(name="ann", kind="issuer", roles=frozenset({Role.READ}), org="acme", until_ms=NOW + 5_000)
    cookie, until_ms = book.keys.make_session(who, NOW)
    assert until_ms == NOW + 5_000 and book.keys.session(cookie, NOW) == who
    assert book.keys.session(cookie, NOW + 5_000) is None
    body, _, mac = cookie.partition(".")
    for wrong in ("", ".", body, f"{body}.", f"{body[:-2]}AA.{mac}", f"{body}.{mac[:-1]}", "é." + mac, "x" * 5000):
        assert book.keys.session(wrong, NOW) is None
    changed = Doorkeys(Settings(home=tmp_path, token="another token of the worker"))
    assert changed.session(cookie, NOW) is None
    long, until_ms = book.keys.make_session(replace(who, until_ms=None), NOW)
    assert until_ms == NOW + access.SESSION_S * 1000 and book.keys.session(long, until_ms) is None


def test_a_command_shows_what_it_has(tmp_path: Path) -> None:
    """MILEPOST_TOKEN, else a pass where the secret lies; without either nothing, and no secret is made for it."""
    settings = Settings(home=tmp_path / "home")
    assert bearer(settings) == "" and not settings.secret_file.exists()
    assert bearer(replace(settings, token="t" * 16)) == "t" * 16
    settings.secret()
    assert Doorkeys(settings).passed(bearer(settings), now_ms())


def test_a_request_means_the_tokens_organisation() -> None:
    """Where a request names none, it means the token's; another one's is refused; a token for all means what is named."""
    bound = Principal(name="a", kind="token", roles=ALL, org="acme")
    assert own(bound, None) == own(bound, "acme") == "acme"
    for other in ("rival", "", "acme ", "acm", "acme2"):
        with pytest.raises(Foreign):
            own(bound, other)
    free = replace(bound, org=None)
    assert own(free, None) is None and own(free, "rival") == "rival" and own(None, "rival") == "rival"


def test_nothing_shows_a_secret(tmp_path: Path) -> None:
    """Settings and what is made of them show no secret when they are printed."""
    settings = Settings(home=tmp_path, token="a canary of a token", secret_text="a canary of a secret")
    keys = Doorkeys(settings)
    shown = f"{settings!r} {keys!r} {keys.__class__} {Book(keys)!r}"
    assert "canary" not in shown and "canary" not in json.dumps(shown)
