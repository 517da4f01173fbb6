"""`connect csv` and `connect ndjson`: rows become events by a mapping; what does not fit is said with line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from milepost.ops import cli
from milepost.ops.connect.mapping import read_mapping
from milepost.ops.connect.tables import TableReport, send_table
from milepost.schemas.errors import BundleError, DeclarationError

MAPPING = """
org: acme
source: tickets
type: {column: Kind}
id: Ticket
time: {column: Closed, format: "%d.%m.%Y %H:%M", zone: Europe/Berlin}
delimiter: ";"
data:
  customer: Customer
  hours: {column: Hours, as: number, decimal: ","}
  count: {column: Count, as: integer}
  open: {column: Open, as: boolean}
  priority: {column: Prio, values: {H: high, L: low}}
  origin: {value: import}
"""
HEAD = "Ticket;Kind;Closed;Customer;Hours;Count;Open;Prio\n"


class Gateway:
    """Takes everything, and tells a repeat by its id."""

    def __init__(self) -> None:
        self.events: dict[str, Any] = {}

    def post(self, path: str, events: list[dict[str, Any]]) -> Any:
        assert path == "/v1/events"
        said = ["duplicate" if self.events.get(one["id"]) == one else "accepted" for one in events]
        self.events |= {one["id"]: one for one in events}
        return {"items": [{"status": one, "receipt": "raw-events/0@1"} for one in said]}


def sent(tmp_path: Path, mapping: str, text: str | bytes, kind: Any = "csv") -> tuple[list[Any], TableReport]:
    file = tmp_path / "table"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    gateway: Any = Gateway()
    report = send_table(gateway, kind, file, read_mapping("m.yaml", mapping.encode(), None))
    return list(gateway.events.values()), report


def test_a_row_becomes_an_event(tmp_path: Path) -> None:
    """Text, numbers, truths, values by name, a constant; an empty cell is left out; the zone is the mapping's."""
    rows = (
        'T-1;ticket.closed;03.07.2025 10:15;"Orchard; Sons";1.234,5;7;yes;H\nT-2;ticket.closed;03.01.2025 10:15;B;;;;\n'
    )
    events, report = sent(tmp_path, MAPPING, "\ufeff" + HEAD + rows)
    assert report.sent.outcomes == {"accepted": 2} and not report.by_hash
    assert events[0] == {
        "org": "acme", "source": "tickets", "id": "T-1", "type": "ticket.closed", "time": "2025-07-03T10:15:00+02:00",
        "data": {"customer": "Orchard; Sons", "hours": 1234.5, "count": 7, "open": True, "priority": "high",
                 "origin": "import"},
    }  # fmt: skip
    assert events[1]["data"] == {"customer": "B", "origin": "import"}
    assert events[1]["time"] == "2025-01-03T10:15:00+01:00"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("T;k;03.07.2025;A;;;;", "line 3: column Closed: a time was expected as %d.%m.%Y %H:%M, '03.07.2025' came"),
        ("T;k;30.03.2025 02:30;A;;;;", "column Closed: '30.03.2025 02:30' is no time of Europe/Berlin: clocks went"),
        ("T;k;01.01.1960 00:00;A;;;;", "column Closed: '01.01.1960 00:00': time lies before 1970"),
        ("T;k;;A;;;;", "column Closed: it is empty"),
        (";k;03.07.2025 10:15;A;;;;", "column Ticket: it is empty"),
        ("T;k;03.07.2025 10:15;A;many;;;", "column Hours: a number was expected, 'many' came"),
        ("T;k;03.07.2025 10:15;A;nan;;;", "column Hours: a number was expected"),
        ("T;k;03.07.2025 10:15;A;;1,5;;", "column Count: a whole number was expected"),
        ("T;k;03.07.2025 10:15;A;;;maybe;", "column Open: true or false was expected"),
        ("T;k;03.07.2025 10:15;A;;;;X", "column Prio: one of H, L was expected, 'X' came"),
        ("T;k;03.07.2025 10:15;A;;;", "line 3: 8 cells were expected, 7 came"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(tmp_path: Path, row: str, said: str) -> None:
    """Line and column of each, and what was expected; the rows around it are sent."""
    good = "T-{};k;03.07.2025 10:15;A;;;;\n"
    events, report = sent(tmp_path, MAPPING, HEAD + good.format(1) + row + "\n" + good.format(2))
    assert [one["id"] for one in events] == ["T-1", "T-2"] and report.rejected == 1 and report.rows == 3
    assert said in report.text()


def test_rows_without_an_id_go_by_their_hash(tmp_path: Path) -> None:
    """The same row is the same event, in this file and the next time; it is said."""
    mapping = MAPPING.replace("id: Ticket\n", "")
    row = "T;k;03.07.2025 10:15;A;1;;;\n"
    events, report = sent(tmp_path, mapping, HEAD + row + row + row.replace(";1;", ";2;"))
    assert report.sent.outcomes["accepted"] + report.sent.outcomes["duplicate"] == 3 and len(events) == 2
    assert report.by_hash and "equal rows count once" in report.text()
    assert [one["id"] for one in sent(tmp_path, mapping, HEAD + row)[0]] == [events[0]["id"]]


def test_ndjson_keeps_what_json_says(tmp_path: Path) -> None:
    """Values keep their kinds, a.b is below a; lines that are no objects are said with line and column."""
    mapping = """
source: app
org: acme
type: use
id: meta.id
time: {column: at, format: unix_ms}
data: {n: count, tags: tags, who: user.name, raw: {column: user, as: text}}
"""
    line = {"meta": {"id": 7}, "at": 1_751_530_500_250, "count": 3, "tags": ["a"], "user": {"name": "é"}}
    text = "\n".join([json.dumps(line), '{"meta": 1', "[]", "", json.dumps({**line, "at": None}), '{"a": 1e999}'])
    events, report = sent(tmp_path, mapping, text, "ndjson")
    assert events == [
        {"org": "acme", "source": "app", "id": "7", "type": "use", "time": "2025-07-03T08:15:00.250000+00:00",
         "data": {"n": 3, "tags": ["a"], "who": "é", "raw": '{"name": "é"}'}},
    ]  # fmt: skip
    said = [f"{one['line']}: {one['said']}" for one in report.sent.problems]
    assert said == [
        "2: column 11: not JSON: Expecting ',' delimiter",
        "3: a JSON object was expected",
        "5: column at: it is empty",
        "6: column at: it is empty",
    ]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        (MAPPING.replace("source:", "sorce:"), "m.yaml:3:1: 'sorce' is no key of a mapping of rows"),
        (MAPPING.replace("as: number", "as: numbr"), "m.yaml:10:30: 'text', 'number', "),
        (MAPPING.replace("{value: import}", "{}"), "a field has a column, or a value that is the same for all"),
        (MAPPING.replace("Europe/Berlin", "Europe/Berlim"), "m.yaml:6:56: a zone as in Europe/Berlin was expected"),
        (MAPPING.replace("customer:", "1st:"), "a name of letters, digits and _ that begins with a letter"),
    ],
)
def test_a_wrong_mapping_is_said_with_its_place(mapping: str, said: str) -> None:
    """Line, column, what was expected."""
    with pytest.raises(BundleError) as wrong:
        read_mapping("m.yaml", mapping.encode(), None)
    assert said in str(wrong.value) and len(wrong.value.findings) <= 2


def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path) -> None:
    """A column that is not there (with a guess), one that is there twice, no head, other bytes, a quote left open."""
    for text, said in (
        (HEAD.replace("Hours", "Hour"), "m.yaml:10:19: the table has no column 'Hours'; did you mean 'Hour'?"),
        (HEAD.replace("Count", "Hours"), "the column 'Hours' stands twice in line 1"),
        ("", "the file is empty"),
        (HEAD.encode() + b"T;k;03.07.2025 10:15;Ren\xe9;;;;\n", "is not utf-8-sig (invalid continuation byte"),
        (HEAD + 'T;k;03.07.2025 10:15;"A;;;;\n', "line 2: unexpected end of data"),
    ):
        with pytest.raises(DeclarationError) as refused:
            sent(tmp_path, MAPPING, text)
        assert said in str(refused.value)
    events, _ = sent(tmp_path, MAPPING + "encoding: latin-1\n", HEAD.encode() + b"T;k;03.07.2025 10:15;Ren\xe9;;;;\n")
    assert events[0]["data"]["customer"] == "René"
    with pytest.raises(DeclarationError, match="names no organisation; fix: org"):
        read_mapping("m.yaml", MAPPING.replace("org: acme\n", "").encode(), None)


def test_a_dry_run_sends_nothing(tmp_path: Path) -> None:
    """The first events and what does not fit are shown, without a worker; exit 1 when anything does not fit."""
    (tmp_path / "m.yaml").write_text(MAPPING)
    good = "".join(f"T-{i};k;03.07.2025 10:15;A;{i};;;\n" for i in range(8))
    (tmp_path / "t.csv").write_text(HEAD + good)
    command = ["connect", "csv", str(tmp_path / "t.csv"), "--map", str(tmp_path / "m.yaml"), "--dry-run", "--json"]
    fits = CliRunner().invoke(cli.app, command)
    told = json.loads(fits.stdout)
    assert (
        fits.exit_code == 0
        and told["rows"] == 8
        and [one["id"] for one in told["preview"]] == [f"T-{i}" for i in range(5)]
    )
    (tmp_path / "t.csv").write_text(HEAD + good + "T;k;soon;A;;;;\n")
    unfit = CliRunner().invoke(cli.app, command[:-1])
    assert unfit.exit_code == cli.FAILED
    assert "8 of 9 rows fit; nothing was sent" in unfit.stdout and "line 10: column Closed" in unfit.stdout
    assert "cannot be read" in CliRunner().invoke(cli.app, [*command[:4], "absent"]).stderr
