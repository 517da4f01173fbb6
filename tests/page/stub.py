"""A worker that is not one: the page's files and the answers it asks for, made up but always the same.

Each (company, origin) has a number of departures for every hour of eight weeks; every other answer follows from those.
As shown, one departure in fifty of the last three days before the moment has not arrived yet.  Faults are queued by the
end of a path (`stub.fail("/value", 503, ...)`), answers can be held back, and every call is kept in `stub.calls`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo

PAGE = Path(__file__).parents[2] / "agents" / "views" / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

HOUR = timedelta(hours=1)
START = datetime(2013, 1, 1, 5, tzinfo=UTC)
HOURS = 8 * 7 * 24
END = START + HOURS * HOUR
CORRECTED = START + 9 * 24 * HOUR
"""Of this hour something came long after it was settled."""

COMPANIES = {
    "AA": "American Airlines Inc.",
    "B6": "JetBlue Airways",
    "DL": "Delta Air Lines Inc.",
    "EV": "ExpressJet Airlines Inc.",
    "UA": "United Air Lines Inc.",
    "WN": "Southwest Airlines Co.",
    "ZZ": "<img src=x onerror=\"document.title='owned'\">",
}
ORIGINS = ("EWR", "JFK", "LGA")
METRICS: tuple[tuple[str, str, str | None, tuple[str, ...]], ...] = (
    ("departures", "flights", "count", ("origin", "dest")),
    ("on_time_departures", "flights", "count", ("origin", "dest")),
    ("cancellations", "flights", "count", ("origin",)),
    ("departure_delay_avg", "min", "avg", ("origin",)),
    ("departure_delay_max", "min", "max", ("origin",)),
    ("aircraft_in_service", "aircraft", "distinct", ()),
    ("on_time_rate", "ratio", None, ("origin", "dest")),
)
COMMON = {"company", "at", "basis", "tz"}


def metakey(code: str) -> str:
    return "mk_" + (code.lower() + "abcdefghijklmnopqrstuvwxyz234567")[:26].replace("9", "a").replace("6", "g")


def hourly(code: str, origin: str, hour: int) -> int:
    """Departures of a company from an origin in the hour after START + hour."""
    if code == "ZZ" and hour >= 24:
        return 0
    size = 2 + (ord(code[0]) * 7 + ord(code[1]) * 3 + ord(origin[0])) % 9
    local = (START + hour * HOUR).astimezone(ZoneInfo("America/New_York"))
    awake = 0 if local.hour < 5 or local.hour > 22 else 1
    week = 0.7 if local.weekday() == 5 else 1.0
    storm = 0.35 if local.month == 2 and local.day in (8, 9) else 1.0
    return int(size * awake * week * storm * (1 + (hour * 31 + size * 17) % 5 / 5))


SUMS: dict[tuple[str, str], list[int]] = {}
for _code in COMPANIES:
    for _origin in ORIGINS:
        _rows = [0]
        for _hour in range(HOURS):
            _rows.append(_rows[-1] + hourly(_code, _origin, _hour))
        SUMS[_code, _origin] = _rows


class Refusal(Exception):
    def __init__(self, status: int, title: str, **more: str) -> None:
        super().__init__(title)
        self.status = status
        self.body = {"type": "about:blank", "title": title, "status": status, **more}


@dataclass
class Stub:
    """The stub's dials, shared by its threads."""

    url: str = ""
    ended: bool = False
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    faults: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    hold_s: float = 0.0
    null: str = ""  # every value is null for this reason
    streams: list[dict[str, str]] = field(default_factory=list)
    told: int = 0  # raise it, and every open stream is told its value again
    empty: bool = False  # no metrics, no companies, no time
    nobodys: str = ""  # the metric that no company has

    def fail(
        self, end: str, status: int, *, times: int = 1, headers: dict[str, str] | None = None, **body: str
    ) -> None:
        """The next `times` calls whose path ends in `end` get this problem."""
        problem = json.dumps({"title": "Made to fail", "status": status, **body}).encode()
        self.faults.setdefault(end, []).extend([(status, headers or {}, problem)] * times)

    def asked(self, end: str) -> list[dict[str, str]]:
        return [query for path, query in self.calls if path.endswith(end)]

    def answer(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        if path == "/v1/metrics":
            return self.metrics()
        if path == "/v1/companies":
            listed = [] if self.empty else COMPANIES.items()
            wanted = query.get("q", "").lower()
            rows = [
                {"metakey": metakey(c), "name": n, "keys": [f"carrier_code:{c}", f"carrier_name:{n}"]}
                for c, n in listed
                if wanted in f"{c} {n}".lower()
            ]
            return {"companies": rows, "next": None}
        parts = path.strip("/").split("/")
        if len(parts) == 4 and parts[:2] == ["v1", "metrics"]:
            return self.metric(unquote(parts[2]), parts[3], query)
        raise Refusal(404, "There is nothing here.", detail=path)

    def metrics(self) -> dict[str, Any]:
        if self.empty:
            return {"metrics": [], "org": None, "time_range": None}
        rows = [{"name": n, "unit": u, "aggregate": a, "dimensions": list(d)} for n, u, a, d in METRICS]
        return {"metrics": rows, "org": "port-authority", "time_range": {"from": text(START), "to": text(END)}}

    def metric(self, name: str, call: str, query: dict[str, str]) -> dict[str, Any]:
        found = next((m for m in METRICS if m[0] == name), None)
        if found is None:
            raise Refusal(404, f"No metric is called {name}.", detail="GET /v1/metrics lists them.", guess="departures")
        allowed = COMMON | {"value": {"window"}, "breakdown": {"window", "by"}, "series": {"from", "to", "every"}}[call]
        if set(query) - allowed:
            raise Refusal(422, f"Unknown parameters: {sorted(set(query) - allowed)}.")
        basis = query.get("basis") or ("corrected" if "at" in query else "latest")
        if basis == "latest" and "at" in query:
            raise Refusal(422, "`latest` has no moment.", fix="Leave out at, or ask for corrected.")
        at = moment(query["at"]) if "at" in query else END
        codes = list(COMPANIES)
        if "company" in query:
            codes = [c for c in COMPANIES if query["company"] in (metakey(c), f"carrier_code:{c}")]
            if not codes:
                raise Refusal(404, "No such company.", guess="carrier_code:UA")
        tz = query.get("tz", "UTC")
        head = {"metric": name, "unit": found[1], "at": text(at), "basis": basis, "tz": tz}
        if call == "series":
            return {**head, "points": list(self.points(name, codes, at, basis, query, tz))}
        window = query.get("window", "all")
        start, stop = bounds(window, at, tz)
        if call == "value":
            value, reason = self.value(name, codes, ORIGINS, start, stop, at, basis)
            more: dict[str, Any] = {"shown_lag_ms": 2000} if basis == "as_shown" else {}
            return {
                **head, "window": window, "value": value, "reason": reason, "complete_to": text(END),
                "finality": "open" if basis == "latest" else "final", "definition": "current", "version": "0badc0de", **more,
            }  # fmt: skip
        rows = []
        if query.get("by") == "company":
            for code in codes if name != self.nobodys else []:
                value, _ = self.value(name, [code], ORIGINS, start, stop, at, basis)
                rows.append({"key": metakey(code), "label": COMPANIES[code], "value": value})
        elif query.get("by") in found[3]:
            for origin in ORIGINS if query["by"] == "origin" else [f"D{i:02}" for i in range(60)]:
                value, _ = self.value(name, codes, (origin if origin in ORIGINS else "EWR",), start, stop, at, basis)
                rows.append({"key": origin, "label": origin, "value": value})
        else:
            raise Refusal(422, f"{name} has no dimension {query.get('by')}.", guess="origin")
        return {**head, "window": window, "rows": rows}

    def points(
        self, name: str, codes: list[str], at: datetime, basis: str, query: dict[str, str], tz: str
    ) -> Iterator[dict[str, Any]]:
        start, stop = moment(query["from"]), moment(query["to"])
        while start < stop:
            end = start + HOUR if query["every"] == "1h" else next_day(start, tz, int(query["every"][:-1]))
            value, reason = self.value(name, codes, ORIGINS, start, min(end, at), at, basis)
            finality = "corrected" if start <= CORRECTED < end else "final"
            yield {"start": text(start), "end": text(end), "value": value, "reason": reason, "finality": finality}
            start = end

    def value(
        self,
        name: str,
        codes: list[str],
        origins: tuple[str, ...],
        start: datetime,
        stop: datetime,
        at: datetime,
        basis: str,
    ) -> tuple[float | None, str | None]:
        """A number of the made-up world, or null and its reason."""
        if self.null:
            return None, self.null
        count = sum(between(c, o, start, stop) for c in codes for o in origins)
        if basis == "as_shown":
            late = sum(between(c, o, max(start, at - timedelta(days=3)), stop) for c in codes for o in origins)
            count -= late // 50
        if count == 0:
            return None, "no_events"
        numbers: dict[str, float] = {
            "departures": count,
            "on_time_departures": count * 7 // 9,
            "cancellations": count // 40,
            "departure_delay_avg": round(12 + count % 700 / 100, 6),
            "departure_delay_max": 60 + count % 1241,
            "aircraft_in_service": 10 + count % 4000 // 10,
            "on_time_rate": (count * 7 // 9) / count,
        }
        return numbers[name], None


def between(code: str, origin: str, start: datetime, stop: datetime) -> int:
    """Departures in whole hours of [start, stop)."""
    first = min(max((start - START) // HOUR, 0), HOURS)
    last = min(max((stop - START) // HOUR, 0), HOURS)
    return SUMS[code, origin][max(first, last)] - SUMS[code, origin][first]


def bounds(window: str, at: datetime, tz: str) -> tuple[datetime, datetime]:
    """[start, stop) of a window that ends at a moment."""
    if window == "all":
        return START, at
    if window[:-1].isdigit():
        return at - int(window[:-1]) * {"m": HOUR / 60, "h": HOUR, "d": 24 * HOUR}[window[-1]], at
    local = (at - timedelta(microseconds=1)).astimezone(ZoneInfo(tz)).replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "week":
        local -= timedelta(days=local.weekday())
    elif window == "month":
        local = local.replace(day=1)
    elif window == "year":
        local = local.replace(month=1, day=1)
    elif window != "day":
        raise Refusal(
            422, f"{window} is not a window.", guess="28d", fix="all, <n>m, <n>h, <n>d, year, month, week, day"
        )
    return local.astimezone(UTC), at


def next_day(start: datetime, tz: str, days: int) -> datetime:
    return (start.astimezone(ZoneInfo(tz)) + timedelta(days=days)).astimezone(UTC)


def moment(words: str) -> datetime:
    return datetime.fromisoformat(words.replace("Z", "+00:00"))


def text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def running(port: int = 0) -> Iterator[Stub]:
    """The stub on a free port of the loopback, until the block ends."""
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """A test's output is its own."""

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/" or url.path.startswith("/page/"):
                self.file(url.path)
                return
            query = dict(parse_qsl(url.query, keep_blank_values=True))
            if url.path == "/v1/stream":
                self.stream(query)
                return
            stub.calls.append((url.path, query))
            time.sleep(stub.hold_s)
            queued = next((q for end, q in stub.faults.items() if url.path.endswith(end) and q), None)
            if queued:
                status, headers, body = queued.pop(0)
                self.reply(status, body, "application/problem+json", headers)
                return
            try:
                self.reply(200, json.dumps(stub.answer(url.path, query)).encode(), "application/json")
            except Refusal as refusal:
                self.reply(refusal.status, json.dumps(refusal.body).encode(), "application/problem+json")

        def stream(self, query: dict[str, str]) -> None:
            """The value of a question now, and whenever the test says so."""
            stub.streams.append(query)
            asked = {name: value for name, value in query.items() if name != "metric"}
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.close_connection = True
            seen = -1
            try:
                while not stub.ended:
                    if seen != stub.told:
                        seen = stub.told
                        data = json.dumps(stub.metric(query["metric"], "value", asked))
                        self.wfile.write(f"event: value\nid: {seen}\ndata: {data}\n\n".encode())
                        self.wfile.flush()
                    time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError):
                return  # the page listens no more

        def file(self, path: str) -> None:
            file = (PAGE / (path.removeprefix("/page/") if path != "/" else "index.html")).resolve()
            if PAGE not in file.parents or not file.is_file():
                self.reply(404, b"", "text/plain")
                return
            self.reply(200, file.read_bytes(), KINDS.get(file.suffix, "text/plain"))

        def reply(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            try:
                self.send_response(status)
                for name, value in {
                    "Content-Type": kind,
                    "Content-Length": str(len(body)),
                    "Content-Security-Policy": CSP,
                    "X-Content-Type-Options": "nosniff",
                    "Cache-Control": "no-store",
                    **(headers or {}),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the page gave up on this answer: a newer question overtook it

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", port), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="stub", daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.ended = True
        server.shutdown()
        server.server_close()
        thread.join()
