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


@given(STEPS, KEYS, KEYS)
def test_an_overlay_reads_like_a_dict(steps: list[tuple[str, bytes, bytes]], start: bytes, stop: bytes) -> None:
    """Whatever was put, deleted, taken or landed, get and scan answer like one ordered dict."""
    store, model = Store("s", DictBase()), dict[bytes, bytes]()
    for what, key, value in steps:
        if what == "put":
            store.put(key, value)
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


def test_landing_leaves_nothing_to_take() -> None:
    """After a checkpoint the base holds everything and the size that bounds a checkpoint is nought."""
    store = Store("s", DictBase())
    store.put(b"k", b"\0" * 8)
    assert store.size > 0
    land(store)
    assert store.size == 0 and store.take() == {} and store.get(b"k") == b"\0" * 8
