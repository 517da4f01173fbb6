"""The graph: proposals and decisions folded in the order of their known times, whatever order they come in."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.topology import graph as module
from milepost.topology.definitions import Kind, Protection
from milepost.topology.graph import KEYS_MAX, Components, Fold, Graph, Item
from milepost.topology.links import Decision, Link, Named, chain
from tests.oracle import identity
from tests.oracle.log import Decision as ByHand
from tests.oracle.log import KeyFact

CODE, VAT = ("company", "code"), ("company", "vat")
UNIQUE = Protection(unique=frozenset({VAT}), limits={CODE: 3}, blocked={})


def leaf(number: int) -> bytes:
    return number.to_bytes(16, "big")


def kind(number: int) -> Kind:
    return VAT if number % 3 == 0 else CODE


def proposal(a: int, b: int, k_ms: int) -> Link:
    a, b = sorted((a, b))
    kinds = {"kind_a": kind(a), "kind_b": kind(b)}
    return Link(a=leaf(a), b=leaf(b), rank_a=a % 3, rank_b=b % 3, k_ms=k_ms, **kinds)


def by_hand(what: str, keys: tuple[int, ...], k_ms: int, number: int = 0) -> Decision:
    named = tuple(Named(leaf=leaf(one), kind=kind(one), rank=one % 3) for one in keys)
    id = (k_ms * 100 + number).to_bytes(16, "big")
    return Decision(id=id, what="link" if what == "link" else "unlink", keys=named, k_ms=k_ms)


def graph(*items: Item) -> Graph:
    made = Graph()
    for one in items:
        made.add(one)
    return made


def together(components: Components, *numbers: int) -> bool:
    return len({components.root(leaf(one)) for one in numbers}) == 1


def parts(components: Components, many: int) -> list[frozenset[bytes]]:
    return sorted({frozenset(components.leaves(components.root(leaf(one)))) for one in range(many)}, key=sorted)


def test_merge_then_unmerge_leaves_everything_as_it_was() -> None:
    """A link by hand joins two components with all that is in them, an unlink gives back what there was, and what was
    joined to either side in between stays on that side."""
    before = [proposal(1, 2, 10), proposal(4, 5, 11)]
    merged = by_hand("link", (1, 4), 20)
    between = proposal(5, 7, 25)
    made = graph(*before, merged, between, by_hand("unlink", (4, 5, 7), 30))
    assert parts(made.at(19), 8) == parts(graph(*before).at(None), 8)
    assert together(made.at(20), 1, 2, 4, 5) and together(made.at(29), 1, 2, 4, 5, 7)
    assert parts(made.at(None), 8) == parts(graph(*before, between).at(None), 8)


def test_what_was_taken_apart_is_not_joined_by_an_event() -> None:
    """After an unlink a proposal across the cut is refused, also over a third key; it waits for review."""
    cut = [proposal(1, 2, 10), by_hand("unlink", (2,), 20)]
    made = graph(*cut, proposal(2, 4, 30), proposal(1, 4, 31))
    assert together(made.at(None), 2, 4) and not together(made.at(None), 1, 4)
    assert [(one.link.k_ms, one.why) for one in made.at(None).refused] == [(31, "unlinked")]
    assert made.at(30).refused == []


def test_a_later_link_by_hand_joins_them_again() -> None:
    """A link by hand across a cut lifts it: what was refused is resolved, and events may join the sides again."""
    cut = [proposal(1, 2, 10), by_hand("unlink", (2,), 20), proposal(1, 4, 25), proposal(2, 5, 26), proposal(4, 5, 30)]
    assert [one.why for one in graph(*cut).at(None).refused] == ["unlinked"]
    made = graph(*cut, by_hand("link", (1, 2), 40))
    assert together(made.at(None), 1, 2, 4, 5) and made.at(None).refused == []
    assert [one.why for one in made.at(39).refused] == ["unlinked"]


def test_two_values_of_a_unique_kind_never_join_in_one_component() -> None:
    """The proposal that would join them is refused, whichever way it goes; one over which they would join later is too."""
    made = graph(proposal(3, 1, 10), proposal(6, 2, 11), proposal(1, 2, 12), proposal(3, 6, 13))
    assert not together(made.at(None, UNIQUE), 3, 6) and together(made.at(None, UNIQUE), 1, 3)
    assert [(one.link.k_ms, one.why) for one in made.at(None, UNIQUE).refused] == [(12, "unique"), (13, "unique")]
    assert together(made.at(None), 1, 2, 3, 6), "without protection they join"


def test_a_limit_holds_the_keys_of_a_kind() -> None:
    """The fourth value of a kind with limit 3 stays out, and by hand it comes in."""
    links = [proposal(1, one, 10 + one) for one in (2, 4, 5)]
    made = graph(*links)
    assert together(made.at(None, UNIQUE), 1, 2, 4) and not together(made.at(None, UNIQUE), 1, 5)
    assert [one.why for one in made.at(None, UNIQUE).refused] == ["limit"]
    made.add(by_hand("link", (1, 5), 99))
    assert together(made.at(None, UNIQUE), 1, 5) and made.at(None, UNIQUE).refused == []


ITEMS = st.lists(
    st.tuples(st.sampled_from(("proposal",) * 5 + ("link", "unlink")), st.integers(0, 9), st.integers(0, 9), st.integers(0, 40)),
    max_size=25,
)  # fmt: skip


def made_of(drawn: list[tuple[str, int, int, int]]) -> list[Item]:
    items: list[Item] = []
    for number, (what, a, b, k_ms) in enumerate(drawn):
        if what == "unlink":
            items.append(by_hand(what, (a, b) if a % 2 and a != b else (a,), k_ms, number))
        elif a != b:
            items.append(proposal(a, b, k_ms) if what == "proposal" else by_hand(what, (a, b), k_ms, number))
    return items


@settings(max_examples=300, deadline=None)
@given(ITEMS, st.randoms(use_true_random=False), st.booleans(), st.lists(st.integers(0, 41), max_size=4))
def test_random_links_and_unlinks_against_the_oracle_at_random_t(
    drawn: list[tuple[str, int, int, int]], chance: random.Random, limited: bool, moments: list[int]
) -> None:
    """In whatever order they come, and whatever is asked in between, the components, the roots and the review queue at
    any time are those of the oracle."""
    items = made_of(drawn)
    arriving = list(items)
    chance.shuffle(arriving)
    protection = UNIQUE if limited else None
    made = Graph()
    for one in arriving:
        made.add(one)
        if chance.random() < 0.4:
            made.at(chance.choice((None, *moments)), protection if chance.random() < 0.8 else None)
    facts = {
        leaf(n): KeyFact(
            org="", entity=kind(n)[0], key=kind(n)[1], value="", source="", k_ms=0, label=False, rank=n % 3
        )
        for n in range(10)
    }
    proposals: dict[tuple[bytes, bytes], int] = {}
    for one in items:
        if isinstance(one, Link):
            proposals[one.a, one.b] = min(one.k_ms, proposals.get((one.a, one.b), one.k_ms))
    decisions = [
        ByHand(org="", what=one.what, id=one.id, leaves=tuple(key.leaf for key in one.keys), k_ms=one.k_ms)
        for one in items
        if isinstance(one, Decision)
    ]
    for c_ms in (None, *moments):
        limits = {VAT: 1, CODE: 3} if limited else {}
        expected = identity.Graph(facts, limits).fold(proposals, decisions, c_ms)
        found = made.at(c_ms, protection)
        for n in range(10):
            component = expected.component(leaf(n))
            assert frozenset(found.leaves(found.root(leaf(n)))) == component
            if len(component) > 1:
                assert found.root(leaf(n)) == min(component, key=lambda one: (facts[one].rank, one))
        refused = [(one.link.a, one.link.b, one.why) for one in found.refused]
        assert refused == [one for one in expected.refused if one[1] not in expected.component(one[0])]


def test_a_star_of_aliases_is_folded_near_linearly_and_goes_on_where_it_stopped() -> None:
    """A hundred thousand aliases of one company fold in seconds, in bounded steps; one more costs one more."""
    made = Graph()
    many = KEYS_MAX - 2
    for one in range(1, many):
        made.add(Link(a=leaf(0), b=leaf(one), rank_a=0, rank_b=1, k_ms=one))
    began = time.process_time()
    steps = made.folded(None)
    pieces = sum(1 for _ in steps)
    assert pieces >= 40
    assert len(made.at(None).leaves(leaf(0))) == many
    assert time.process_time() - began < 20
    taken: list[Item] = []
    real = Fold.take
    try:
        Fold.take = lambda self, item: (taken.append(item), real(self, item))[1]  # type: ignore[method-assign]
        made.add(Link(a=leaf(0), b=leaf(many), rank_a=0, rank_b=1, k_ms=many))
        made.add(Link(a=leaf(0), b=leaf(many + 1), rank_a=0, rank_b=1, k_ms=5))
        assert len(made.at(None).leaves(leaf(0))) == many + 2
    finally:
        Fold.take = real  # type: ignore[method-assign]
    assert len(taken) == 2
    made.add(Link(a=leaf(0), b=leaf(many + 2), rank_a=0, rank_b=1, k_ms=many + 9))
    assert [one.why for one in made.at(None).refused] == ["too_large"]
    named = (Named(leaf=leaf(7), kind=CODE, rank=1),)
    made.add(Decision(id=b"an unlink by han", what="unlink", keys=named, k_ms=many + 20))
    assert sum(1 for _ in made.folded(None)) >= 80
    assert len(made.at(None).leaves(leaf(0))) == KEYS_MAX - 1 and made.at(None).leaves(leaf(7)) == (leaf(7),)


def test_folds_are_remembered_by_what_they_cover_and_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments between two items share a fold, an item behind forgets none, an older one only those that it changes; what
    is remembered is bounded by leaves."""
    made = graph(*(proposal(0, one, 10 * one) for one in range(1, 6)))
    assert made.at(20) is made.at(29) is not made.at(30)
    now, early = made.at(None), made.at(15)
    assert now is made.at(50) is made.at(99)
    made.add(proposal(0, 7, 70))
    assert made.at(50) is now and made.at(None) is not now
    made.add(proposal(0, 8, 40))
    assert made.at(15) is early and made.at(50) is not now and together(made.at(50), 0, 5, 8)
    monkeypatch.setattr(module, "LEAVES_MAX", 8)
    folds = {id(made.at(at)) for at in (10, 20, 30, 40) for _ in range(2)}
    assert len(folds) == 4 and sum(len(one.joined) for one in made._folded.values()) <= 8


def test_a_thing_is_explained_by_the_shortest_chain() -> None:
    """The chain from a key to its root names each link once, the shortest way, the earlier of two."""
    made = graph(proposal(0, 1, 10), proposal(1, 2, 11), proposal(2, 4, 12), proposal(0, 4, 13), proposal(0, 2, 14))
    found = made.at(None)
    assert [one.k_ms for one in chain(found.edges(leaf(0)), leaf(4), leaf(0))] == [13]
    assert [one.k_ms for one in chain(made.at(12).edges(leaf(0)), leaf(4), leaf(0))] == [12, 11, 10]
    assert chain(found.edges(leaf(0)), leaf(0), leaf(0)) == []


def test_a_proposal_that_comes_again_with_an_older_k_counts_from_then() -> None:
    """Of several arrivals of one edge the least k counts, for the past and for what is told of it."""
    made = graph(proposal(1, 2, 20))
    assert together(made.at(None), 1, 2) and not together(made.at(15), 1, 2)
    made.add(proposal(1, 2, 10))
    made.add(proposal(1, 2, 30))
    assert together(made.at(15), 1, 2)
    assert [one.k_ms for one in made.at(None).edges(leaf(1))] == [10]
