"""Day rows follow from cells, whichever way they are made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milepost.topology import metrics
from milepost.topology.aggregates import Hit, Shape, patch_of
from milepost.topology.panes import PANES_A_DAY
from milepost.topology.state import DictBase, Store

SHAPES = {
    b"counted_": Shape(),
    b"summed__": Shape(sum=True),
    b"extremes": Shape(sum=True, extremes=True, last=True),
    b"distinct": Shape(distinct=True),
    b"sketched": Shape(sketch=True),
}
FOREIGN = b"unknown_"
SIGNALS = st.lists(
    st.tuples(
        st.sampled_from([*SHAPES, FOREIGN]), st.integers(0, 2), st.integers(0, 3 * PANES_A_DAY), st.integers(0, 4),
        st.integers(-(2**70), 2**70),
    ),
    max_size=60,
)  # fmt: skip


def cells_of(signals: list[tuple[bytes, int, int, int, int]]) -> Store:
    """Cells of three leaves over four days; those of a version that nobody knows lie among them."""
    store = Store("cells", DictBase())
    for offset, (version, leaf, pane, late, value) in enumerate(signals):
        shape = SHAPES.get(version, Shape())
        key = metrics.row_key(version + bytes((leaf,)) * 16 + b"\x00", pane)
        counted = value if shape.sum or shape.sketch else None
        number = value % 7 if shape.distinct else None
        hit = Hit(offset.to_bytes(8, "big"), pane + 1 + late, counted, number, pane, bytes(16))
        store.put(key, patch_of(shape)(store.get(key), hit))
    return store


@given(SIGNALS)
def test_one_pass_over_all_cells_makes_the_day_rows_of_each(signals: list[tuple[bytes, int, int, int, int]]) -> None:
    """The day rows made in one pass are those that are made one by one, and none is made twice."""
    cells = cells_of(signals)
    pairs = list(cells.scan(b"", b"\xff" * 64))
    made = list(metrics.all_day_rows(pairs, SHAPES))
    assert len({key for key, _ in made}) == len(made)
    assert dict(made) == dict(metrics.day_rows(cells, SHAPES, [key for key, _ in pairs]))


def test_a_day_with_one_cell_is_that_cell() -> None:
    """The day row of a lone cell has the cell's bytes; two cells of a day are added."""
    cells = cells_of([(b"summed__", 1, 5, 0, 7)])
    ((_, only),) = cells.scan(b"", b"\xff" * 64)
    assert [value for _, value in metrics.all_day_rows(cells.scan(b"", b"\xff" * 64), SHAPES)] == [only]
    two = cells_of([(b"summed__", 1, 5, 0, 7), (b"summed__", 1, 6, 0, 8)])
    ((key, both),) = metrics.all_day_rows(two.scan(b"", b"\xff" * 64), SHAPES)
    assert key[-4:] == bytes(4) and both != only and len(both) > len(only)


def test_cells_of_no_known_definition_have_no_day_rows() -> None:
    """What no catalog knows is left out, as it cannot be read."""
    assert list(metrics.all_day_rows(cells_of([(FOREIGN, 0, 1, 0, 1)]).scan(b"", b"\xff" * 64), SHAPES)) == []
