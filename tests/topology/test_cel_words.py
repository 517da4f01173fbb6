"""CEL in words: short expressions as English, everything else as it is written."""

from __future__ import annotations

import pytest

from milepost.topology.cel import NODES_MAX
from milepost.topology.cel_words import WORDS_MAX, in_words, plain

SAID = [
    ("data.dep_delay <= 15.0", "dep_delay is at most 15"),
    ("15.0 >= data.dep_delay", "dep_delay is at most 15"),
    ("data.amount > 1234567.25", "amount is above 1,234,567.25"),
    ("data.a.b == null", "a.b is not given"),
    ("data.a != null && data.a < -0.1", "a is given and a is below −0.1"),
    ("data.a == null || (data.b > 1.5 && !has(data.c))", "a is not given or (b is above 1.5 and c is not given)"),
    ('!(data.origin in ["EWR", "JFK"])', 'origin is not one of "EWR", "JFK"'),
    ('data.origin in data.hubs', "origin is in hubs"),
    ('data.name.startsWith("A") && size(data.name) > 3.0', 'name begins with "A" and the length of name is above 3'),
    ('!data.name.matches("^a")', 'not: name matches "^a"'),
    ("data.done == false", "done is false"),
    ("!data.done", "done is false"),
    ('event.source == "app"', 'the event’s source is "app"'),
    ("data.minutes > 60.0 ? 'long' : 'short'", '"long" if minutes is above 60, else "short"'),
    ("on_time / departures", "on_time ÷ departures"),
    ("(a + b) / (c * d)", "(a + b) ÷ (c × d)"),
    ("a - (b - c)", "a − (b − c)"),
    ("-data.x", "−x"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), SAID)
def test_a_short_expression_is_said_in_words(text: str, words: str) -> None:
    """Comparisons, sets, texts, choices and sums."""
    assert in_words(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "data.tags.exists(tag, tag == 'page')",
        "data.items[0] == 1.0",
        "{'a': 1.0}['a'] > 0.0",
        "no expression (",
        " && ".join(["data.a_long_name_of_a_field > 1.0"] * 30),
        " + ".join(["1.0"] * NODES_MAX),
        f"data.x in [{', '.join('1.0' for _ in range(20))}]",
    ],
)
def test_what_has_no_short_phrase_has_none(text: str) -> None:
    """Loops, what is no expression, and what would be longer than a line is read."""
    assert in_words(text) == ""


def test_spelling_makes_no_difference() -> None:
    """Words follow the tree: blanks and brackets that change nothing change no word."""
    assert in_words("( data.a<=1.0 )&&data.b>2.0") == in_words("data.a <= 1.0 && (data.b > 2.0)") != ""
    assert max(len(words) for _, words in SAID) <= WORDS_MAX
    assert (plain("data.a.b"), plain("event.type"), plain("metric")) == ("a.b", "the event’s type", "metric")
