"""Evolution: which changes of a contract break reading, which way, and where the blame lies."""

from __future__ import annotations

import pytest

from milepost.schemas.contracts import compile_contract
from milepost.schemas.errors import ContractError
from milepost.schemas.evolution import begins, breaks, same
from tests.support.evolutions import EVOLUTIONS, MAYBE, A, Evolution, field, inner, record


@pytest.mark.parametrize("one", EVOLUTIONS, ids=lambda one: one.name)
def test_a_change_breaks_what_it_says(one: Evolution) -> None:
    """Each change breaks just the directions that are written beside it, and back again the other ones."""
    assert {found.reading for found in breaks(one.old, one.new)} == one.broken
    if one.name not in ("a default comes", "a default goes"):  # what is sent may lack it, what is read may not
        turned = {"backward": "forward", "forward": "backward"}
        assert {found.reading for found in breaks(one.new, one.old)} == {turned[reading] for reading in one.broken}
    compile_contract("Visit", one.old.encode()), compile_contract("Visit", one.new.encode())


def test_the_place_and_what_was_there_are_said() -> None:
    """The path leads to the field; the words say what is written and what is read."""
    old = record(A, field("x", inner(A, field("y", "double"))))
    new = record(A, field("x", inner(A, field("y", "long"))))
    (one,) = breaks(old, new)
    assert one.path == ("x", "y") and one.said == "double is written, long is read"


def test_what_breaks_backward_breaks_data() -> None:
    """For each change that breaks backward there is data of the old contract which the new one refuses; for no other."""
    for one in EVOLUTIONS:
        old, new = (compile_contract("Visit", text.encode()) for text in (one.old, one.new))
        refused = False
        values = (
            (None, 1, 2**40, 2.5, "red", "blue", True, [1], ["t"], {"a": "t"}, {"k": 1})
            if "x" in old.type.fields
            else ()
        )
        for x in ({}, *({"x": value} for value in values)):
            try:
                old.check({"a": "t", **x})
            except ContractError:
                continue
            try:
                new.check({"a": "t", **x})
            except ContractError:
                refused = True
        if "backward" not in one.broken:
            assert not refused, one.name
        elif one.name not in ("a nullable field without a default comes", "the record's name"):
            assert refused, one.name  # JSON has no names, and an absent nullable field is null: stricter than need be


def test_versions_begin_behind_what_was_let_through() -> None:
    """Of versions that break each other the last unbroken stretch counts."""
    good, more, bad = record(A), record(A, field("x", MAYBE, default=None)), record(A, field("y", "long"))
    assert begins([good]) == 0 and begins([good, more]) == 0
    assert begins([good, bad]) == 1 and begins([good, bad, good, more]) == 2
    assert begins([]) == 0


def test_descriptions_do_not_make_another_schema() -> None:
    """A schema with other words, spaces or order of keys says the same; another default does not."""
    assert same(record(field("x", "long", doc="one")), record(field("x", "long", doc="two")).replace(" ", ""))
    assert not same(record(field("x", "long", default=1)), record(field("x", "long", default=2)))
