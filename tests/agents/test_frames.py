"""Frames of server-sent events, and ids that say what a client has seen: examples and laws, without a worker."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.agents.views import frames
from milepost.agents.views.clients import Client, Shared
from milepost.agents.views.frames import ENTRIES_MAX, Seen, frame, milestone_pieces, piece, short, value_pieces
from milepost.agents.views.presence import FORGOTTEN_S, PRESENT_MAX, Full, Presence

PLACE = ("port-authority", None)


def read(data: bytes) -> list[dict[str, str]]:
    """Events as a browser reads them (HTML standard, 9.2.6)."""
    found: list[dict[str, str]] = []
    now: dict[str, str] = {}
    for line in data.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if "data" in now:
                found.append({**now, "data": now["data"][:-1]})
            now = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            now[name] = now.get(name, "") + value + "\n" if name == "data" else value
    return found


def test_a_frame_is_event_id_and_data() -> None:
    """The lines of a frame, in their order, ended by an empty one."""
    assert frame("value", b'{"value":1}', "abc") == b'event: value\nid: abc\ndata: {"value":1}\n\n'
    assert frame("presence", b"{}") == b"event: presence\ndata: {}\n\n"
    assert frames.comment("one\ntwo") == b": one two\n\n" and read(frames.OPENING) == []


@given(st.text())
def test_data_comes_out_as_it_went_in(text: str) -> None:
    """Whatever line ends the data has, a reader gets its lines; nothing of it becomes a field of the frame."""
    (told,) = read(frame("value", text.encode(errors="replace"), "x"))
    plain = text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    assert told == {"event": "value", "id": "x", "data": plain}


@given(st.dictionaries(st.tuples(st.binary(min_size=3, max_size=3), st.binary(min_size=3, max_size=3)),
                       st.binary(min_size=6, max_size=6), max_size=ENTRIES_MAX))  # fmt: skip
def test_an_id_says_what_was_seen(of: dict[tuple[bytes, bytes], bytes]) -> None:
    """An id is read back as what it was made of, in characters that a header takes."""
    seen = Seen.parse(Seen(of).id())
    assert seen.of == of and not seen.cut and Seen(of).id().replace("-", "a").replace("_", "a").isalnum()


def test_an_id_is_bounded_and_says_that_it_is_cut() -> None:
    """Of more than it can name, an id names the newest, and says so."""
    seen = Seen()
    for number in range(ENTRIES_MAX + 7):
        seen.add((b"abc", number.to_bytes(3, "big")), bytes(6))
    assert len(seen.id()) <= 2_402
    again = Seen.parse(seen.id())
    assert again.cut and len(again.of) == ENTRIES_MAX and (b"abc", (6).to_bytes(3, "big")) not in again.of


@pytest.mark.parametrize("text", ["", "17", "ä", "AAAA", "AQ!!", "A" * 9_000, "\x00"])
def test_a_foreign_id_says_nothing(text: str) -> None:
    """What is no id of ours is as none: everything is sent."""
    assert Seen.parse(text).of == {}


def test_the_clock_is_no_change() -> None:
    """Two answers that differ in the moment of asking are one; in anything else they are two."""
    one = {"value": 1, "at": "2013-01-01T00:00:00Z", "shown_lag_ms": 3, "complete_to": None}
    assert piece("value", one).digest == piece("value", {**one, "at": "2014-01-01T00:00:00Z", "shown_lag_ms": 9}).digest
    assert piece("value", one).digest != piece("value", {**one, "complete_to": "2013-01-01T00:00:00Z"}).digest
    assert orjson.loads(piece("value", one).data) == one


def rows(*states: str) -> dict[str, Any]:
    made = [{"plan": "p", "milestone": "m", "company": f"mk_{n}", "state": one} for n, one in enumerate(states)]
    return {"milestones": made, "next": None}


def told(client: Client) -> list[dict[str, Any]]:
    """What a client would be sent now."""
    data = b""
    while (one := client._next()) is not None:
        data += one
    return [{**one, "data": orjson.loads(one["data"])} for one in read(data)]


def answered(shared: Shared, pieces: dict[bytes, frames.Piece], *clients: Client) -> None:
    before, shared.pieces = shared.pieces or {}, pieces
    for client in clients:
        client.told(shared, before)


def value(n: int) -> dict[bytes, frames.Piece]:
    return value_pieces({"metric": "departures"}, {"metric": "departures", "value": n})


def test_the_newest_replaces_what_waits() -> None:
    """Of ten changes that a client had no time for it is told the last, and of a change there and back nothing."""
    shared, client = Shared.of("departures", {}), Client(Seen(), frozenset())
    for n in range(10):
        answered(shared, value(n), client)
    assert len(client._waiting) == 1
    assert [one["data"]["value"] for one in told(client)] == [9]
    answered(shared, value(10), client)
    answered(shared, value(9), client)
    assert told(client) == []


def test_who_comes_back_is_told_what_has_changed() -> None:
    """Nothing that it has seen, everything that it has not, whichever worker it comes to."""
    question = Shared.of(None, {"milestone": "m"})
    first = Client(Seen(), frozenset())
    answered(question, milestone_pieces(rows("pending", "achieved")), first)
    frames_sent = told(first)
    assert [one["event"] for one in frames_sent] == ["milestone", "milestone"]
    half, whole = frames_sent[0]["id"], frames_sent[1]["id"]
    for id, now, wanted in (
        (whole, rows("pending", "achieved"), []),
        (whole, rows("pending", "lapsed"), ["lapsed"]),
        (half, rows("pending", "achieved"), ["achieved"]),
        ("nonsense", rows("pending", "achieved"), ["pending", "achieved"]),
    ):
        other, again = Shared.of(None, {"milestone": "m"}), Client(Seen.parse(id), frozenset())
        answered(other, milestone_pieces(now), again)
        assert [one["data"]["state"] for one in told(again)] == wanted


def test_what_is_no_more_is_revoked() -> None:
    """A row that is gone is named to who is there; who comes back forgets all of that question and is told anew."""
    shared, client = Shared.of(None, {"milestone": "m"}), Client(Seen(), frozenset())
    answered(shared, milestone_pieces(rows("pending", "achieved")), client)
    id = told(client)[-1]["id"]
    answered(shared, milestone_pieces(rows("pending")), client)
    (gone,) = told(client)
    assert gone["event"] == "revoked" and gone["data"] == {"plan": "p", "milestone": "m", "company": "mk_1"}
    again = Client(Seen.parse(id), frozenset())
    again.told(shared, {})
    back = told(again)
    assert [one["event"] for one in back] == ["revoked", "milestone"] and back[0]["data"] == {"milestone": "m"}
    assert Seen.parse(back[1]["id"]).of == Seen.parse(gone["id"]).of


def test_a_question_that_is_refused_later_is_revoked_with_the_problem() -> None:
    """When the definitions lose a metric its streams are told so, and told again when it is back."""
    shared, client = Shared.of("departures", {}), Client(Seen(), frozenset())
    answered(shared, value(1), client)
    told(client)
    shared.problem = {"status": 404}
    answered(shared, {}, client)
    (gone,) = told(client)
    assert gone["event"] == "revoked" and gone["data"] == {"metric": "departures", "problem": {"status": 404}}
    answered(shared, value(1), client)
    assert [one["event"] for one in told(client)] == ["value"]


def test_an_answer_that_is_away_leaves_what_was_seen() -> None:
    """Who comes back while a partition is handed over keeps in its id what it has seen, and misses nothing later."""
    shared, client = Shared.of("departures", {}), Client(Seen(), frozenset())
    answered(shared, value(1), client)
    (one,) = told(client)
    other, again = Shared.of("arrivals", {}), Client(Seen.parse(one["id"]), frozenset())
    answered(other, value_pieces({"metric": "arrivals"}, {"value": 5}), again)
    (between,) = told(again)
    third = Client(Seen.parse(between["id"]), frozenset())
    third.told(shared, {})
    third.told(other, {})
    assert told(third) == []
    assert short(shared.key) != short(other.key)


def test_presence_is_bounded_and_forgotten() -> None:
    """Who has not said so for 30 seconds is forgotten; saying it again is no news, looking at another time is."""
    presence = Presence()
    assert presence.put(PLACE, "ann", None, 0.0) and not presence.put(PLACE, "ann", None, 1.0)
    assert presence.put(PLACE, "ann", "2013-01-01T00:00:00Z", 2.0)
    assert list(presence.expire(FORGOTTEN_S + 1.0)) == [] and presence.at(PLACE)[0]["who"] == "ann"
    assert list(presence.expire(FORGOTTEN_S + 2.0)) == [PLACE] and presence.at(PLACE) == []
    for n in range(PRESENT_MAX):
        presence.put(PLACE, f"p{n}", None, 0.0)
    with pytest.raises(Full):
        presence.put(PLACE, "one more", None, 0.0)
