"""Keys: the bytes that everything else lies under."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.schemas import keys

# From Apache Kafka's own UtilsTest (testMurmur2), as the non-negative number that the partitioner uses.
MURMUR2 = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, b"abc": 479470107}  # fmt: skip


@pytest.mark.parametrize(("data", "signed"), MURMUR2.items())
def test_murmur2_is_kafkas(data: bytes, signed: int) -> None:
    """Our murmur2 gives the numbers of Kafka's own test, sign bit cleared."""
    assert keys.murmur2(data) == signed & 0x7FFFFFFF


def test_the_raw_key_has_known_bytes() -> None:
    """The raw key is BLAKE2b-128 of length-prefixed parts: these bytes never change."""
    key, partition = keys.raw_place("port-authority", "flights", "UA1-2013-01-01-EWR-dep", 0, 0, 8)
    assert key.hex() == "dc47629e61a54601c2062d18caee93cc"
    assert partition == 5


@given(st.text(max_size=300), st.integers(0, 2**31 - 1), st.integers(0, 9))
def test_a_raw_key_is_a_hash_of_its_parts(text: str, revision: int, repair: int) -> None:
    """Key and partition are the hashes of the parts with their lengths, written out here."""
    text = text.encode(errors="replace").decode()
    parts = [part.encode() for part in ("acme", "app", text, str(revision), str(repair))]
    led = [len(part).to_bytes(4, "big") + part for part in parts]
    group, whole = (hashlib.blake2b(b"".join(some), digest_size=16).digest() for some in (led[:3], led))
    assert keys.raw_place("acme", "app", text, revision, repair, 7) == (whole, int.from_bytes(group[:4], "big") % 7)


def test_all_revisions_of_an_event_lie_together() -> None:
    """Revision and repair change the key but never the partition."""
    places = [keys.raw_place("o", "s", "i", revision, repair, 97) for revision in range(5) for repair in range(3)]
    assert len({key for key, _ in places}) == 15
    assert len({partition for _, partition in places}) == 1


@given(st.lists(st.text(max_size=8), min_size=3, max_size=3), st.lists(st.text(max_size=8), min_size=3, max_size=3))
def test_different_identities_have_different_keys(one: list[str], other: list[str]) -> None:
    """No two different (org, source, id) share a key, however their texts run together."""
    same = keys.raw_key(*[part.encode(errors="replace").decode() for part in one]) == keys.raw_key(
        *[part.encode(errors="replace").decode() for part in other]
    )
    assert same == ([p.encode(errors="replace") for p in one] == [p.encode(errors="replace") for p in other])


def test_a_leaf_depends_on_the_secret_the_organisation_and_the_epoch() -> None:
    """The same key is another leaf under another secret, organisation, entity, kind, value or erasure epoch."""
    a, b = keys.OrgKeys(b"s" * 16), keys.OrgKeys(b"t" * 16)
    leaves = {
        keys.leaf(a["acme"], "company", "crm", "1"),
        keys.leaf(b["acme"], "company", "crm", "1"),
        keys.leaf(a["other"], "company", "crm", "1"),
        keys.leaf(a["acme"], "person", "crm", "1"),
        keys.leaf(a["acme"], "company", "crm_i", "d1"),
        keys.leaf(a["acme"], "company", "crm", "2"),
        keys.leaf(a["acme"], "company", "crm", "1", epoch=1),
    }
    assert len(leaves) == 7


@given(st.binary(min_size=16, max_size=16))
def test_a_metakey_reads_back(leaf: bytes) -> None:
    """A MetaKey is mk_ and 26 letters, and names its leaf."""
    text = keys.metakey(leaf)
    assert len(text) == 29 and keys.from_metakey(text) == leaf


@pytest.mark.parametrize("text", ["", "mk_", "mk_" + "a" * 25, "xx_" + "a" * 26, "mk_" + "1" * 26, "mk_" + "é" * 26])
def test_what_is_not_a_metakey_is_refused(text: str) -> None:
    """A text that is no MetaKey says what was expected."""
    with pytest.raises(ValueError, match="MetaKey"):
        keys.from_metakey(text)


def test_a_short_secret_is_refused() -> None:
    """A secret below 16 bytes is a declaration that does not hold."""
    with pytest.raises(keys.DeclarationError, match="16 to 64"):
        keys.OrgKeys(b"short")
