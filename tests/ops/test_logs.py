"""Logs: one line an event, bounded when a library says the same thing a hundred times a second."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

from milepost.ops.logs import (
    ALIKE_MAX,
    ALIKE_S,
    WORDINGS_MAX,
    JsonFormatter,
    Repeats,
    TextFormatter,
    logging_config,
    place,
)
from milepost.ops.settings import Settings


def record(text: str, *values: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("aiokafka", level, "file", 1, text, values, None)


def test_the_same_wording_passes_a_few_times_and_is_counted() -> None:
    """Of a thousand lines alike, whatever their values, five pass; the first of the next ten seconds says how many did not."""
    now = 0.0
    repeats = Repeats(lambda: now)
    passed = [repeats.filter(record("cannot connect to %s", number)) for number in range(1000)]
    assert sum(passed) == ALIKE_MAX and all(passed[:ALIKE_MAX])
    assert repeats.filter(record("another wording"))
    now = ALIKE_S
    following = record("cannot connect to %s", 1)
    assert repeats.filter(following)
    assert TextFormatter().format(following).endswith(f"(left_out={1000 - ALIKE_MAX})")


def test_what_is_critical_always_passes() -> None:
    """The line that says why a worker ends is never left out."""
    repeats = Repeats(lambda: 0.0)
    assert all(repeats.filter(record("ends", level=logging.CRITICAL)) for _ in range(100))


def test_wordings_are_bounded() -> None:
    """A library that puts values into its wording fills no memory."""
    repeats = Repeats(lambda: 0.0)
    assert all(repeats.filter(record(f"wording {number}")) for number in range(5 * WORDINGS_MAX))
    assert len(repeats._seen) <= WORDINGS_MAX


def test_a_person_who_debugs_sees_everything(tmp_path: Path) -> None:
    """The bound holds at info and above; debug leaves nothing out."""
    assert logging_config(Settings(home=tmp_path))["handlers"]["stderr"]["filters"] == ["repeats"]
    assert logging_config(Settings(home=tmp_path, log="debug"))["handlers"]["stderr"]["filters"] == []


def test_lines_of_ours_about_different_partitions_all_pass() -> None:
    """Sixteen partitions that open at once are sixteen lines: only the very same line is left out."""
    limit = Repeats(lambda: 0.0)

    def passes(name: str, *args: object) -> bool:
        return limit.filter(logging.LogRecord(name, logging.INFO, "", 0, "%s: open at %d", args, None))

    assert all(passes("milepost.agents.holding", f"measure/{number}", number) for number in range(16))
    assert sum(passes("milepost.agents.holding", "measure/0", 7) for _ in range(16)) == ALIKE_MAX
    assert sum(passes("aiokafka.conn", "host", port) for port in range(16)) == ALIKE_MAX


def test_a_line_about_a_record_says_where_it_lies() -> None:
    """The place is a field of its own in JSON, and follows the message in text; one object a line, traceback included."""
    logger = logging.Logger("milepost.test")
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("a record is %s", "odd", extra=place("raw-events", 3, 1288))
    line = JsonFormatter().format(told[0])
    found = json.loads(line)
    assert "\n" not in line and found["at"] == "raw-events/3@1288" and found["message"] == "a record is odd"
    assert found["level"] == "error" and found["time"].endswith("Z") and "ValueError" in found["error"]
    assert TextFormatter().format(told[0]).splitlines()[0].endswith("a record is odd (at=raw-events/3@1288)")


def test_every_line_about_a_record_is_bound_to_it() -> None:
    """Whoever logs within reach of a record's offset binds its place, instead of writing it into the words."""
    unbound = []
    for path in (Path(__file__).resolve().parents[2] / "agents").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "log"):
                continue
            named = [one for one in node.args for one in ast.walk(one) if isinstance(one, ast.Attribute)]
            wording = ast.unparse(node.args[0]) if node.args else ""
            about = any(one.attr == "offset" for one in named) or "a record" in wording
            if about and not any(keyword.arg == "extra" for keyword in node.keywords):
                unbound.append(f"{path.name}:{node.lineno}")
    assert not unbound
