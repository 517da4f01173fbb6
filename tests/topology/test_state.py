"""State: an overlay reads as if its changes had already landed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milepost.topology.driver import land
from milepost.topology.state import DictBase, Store

KEYS = st.sampled_from([b"a", b"ab", b"b", b"ba", b"c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(min_size=8, max_size=10)),
        st.tuples(st.just("delete"), KEYS, st.just(b"")),
        st.tuples(st.just("take"), st.just(b""), st.just(b"")),
        st.tuples(st.just("land"), st.just(b""), st.just(b"")),
    ),
    max_size=30,
)


@given(STEPS, KEYS, KEYS, st.sampled_from([0, 1, 60, 10_000]))
def test_an_overlay_reads_like_a_dict(
    steps: list[tuple[str, bytes, bytes]], start: bytes, stop: bytes, remember_bytes: int
) -> None:
    """Whatever was put, deleted, taken, landed or remembered, get and scan answer like one ordered dict."""
    store, model = Store("s", DictBase(), remember_bytes), dict[bytes, bytes]()
    for number, (what, key, value) in enumerate(steps):
        if what == "put":
            if number % 2:
                store.put(key, value)
            else:
                store.put_many({key: value})
            model[key] = value
        elif what == "delete":
            store.delete(key)
            model.pop(key, None)
        elif what == "take" and not store.taken:
            store.take()
        elif what == "land":
            base = store.base
            assert isinstance(base, DictBase)
            for taken, row in store.taken.items():
                if row is None:
                    base.rows.pop(taken, None)
                else:
                    base.rows[taken] = row
            store.landed()
    names = [b"a", b"ab", b"b", b"ba", b"c", b"d"]
    assert store.get_many(names) == [model.get(name) for name in names]
    assert list(store.scan(start, stop)) == sorted((k, v) for k, v in model.items() if start <= k < stop)


def test_what_has_landed_is_remembered_for_two_generations() -> None:
    """A remembered row is not read from the base again; behind two generations of changes it is."""
    store = Store("s", DictBase(), remember_bytes=100)
    base = store.base
    assert isinstance(base, DictBase)
    store.put(b"k", b"\0" * 8)
    land(store)
    base.rows[b"k"] = b"other!!!"  # nobody writes beside the store: it shows who was asked
    assert store.get(b"k") == b"\0" * 8
    for number in range(2):
        store.put(b"n%d" % number, b"\1" * 100)
        land(store)
    assert store.get(b"k") == b"other!!!"


def test_landing_leaves_nothing_to_take() -> None:
    """After a checkpoint the base holds everything and the size that bounds a checkpoint is nought."""
    store = Store("s", DictBase())
    store.put(b"k", b"\0" * 8)
    assert store.size > 0
    land(store)
    assert store.size == 0 and store.take() == {} and store.get(b"k") == b"\0" * 8
