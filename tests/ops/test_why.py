"""Why: what `milepost explain` and `milepost diff` print."""

from __future__ import annotations

from milepost.ops import why
from milepost.topology.explain import Explanations
from milepost.topology.questions import Question
from milepost.topology.steps import run
from tests.support.small import DAY, HOUR, T0, visit
from tests.topology.test_explain import diff
from tests.topology.test_revisions import MINUTE, TEN, amended, engine


def test_the_text_names_the_number_its_causes_and_its_events() -> None:
    """A line for the value, one an operand or cause, one an event; what goes on behind the page is said."""
    event = visit("e", TEN, minutes=10.0)
    made = engine((event, TEN + MINUTE), (amended(event, 1, data={"minutes": 7.0}), TEN + 5 * HOUR))
    ask = Question(metric="minutes_sum", now_ms=T0 + 400 * DAY)
    lines = why.explained(run(Explanations(made.reader).explain(ask, None, 10))).splitlines()
    assert lines[0].startswith("7 ") and lines[1] == "  minutes_sum: 1 counted, agrees" and len(lines) == 3
    assert "app/e r1" in lines[2] and "crm_id:1" in lines[2] and "raw-events/" in lines[2]
    lines = why.differing(diff(made, "minutes_sum", TEN + HOUR)).splitlines()
    assert lines[2] == "  minutes_sum: amended: 1 added, 1 removed: -3" and len(lines) == 5
    paged = why.explained(run(Explanations(made.reader).explain(ask, None, 1)))
    assert "--next" not in paged
