"""The page over real views without a broker: the driver takes at once what is appended, and the answers are the engine's.

    six weeks of three shops ─▶ driver ─▶ views on a free port ─▶ browser

One shop's name and some of the events' fields are markup that would run.  One event came late, one was amended, one was
taken back, one broke its contract, and a link between two shops was refused, since a number that is declared unique would
have two values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.ops.client import Client
from milepost.ops.settings import Settings
from milepost.topology import describe
from milepost.topology.bases import instant, written
from milepost.topology.driver import Driver
from milepost.topology.state import Output
from tests.agents.test_views import Site, Tables, Worker, served

ORG: Final = "shops"
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
START: Final = instant("2013-01-01T00:00:00Z")
DAYS: Final = 42
NOW: Final = START + (DAYS + 1) * DAY
MARKUP: Final = "<img src=x onerror=\"document.title='owned'\">"
SCRIPT: Final = "</script><script>document.title='owned'</script>"
SHOPS: Final[Mapping[str, str]] = {"N1": "North & Sons", "S1": "South Ltd", "W1": MARKUP}
REGIONS: Final = ("coast", "hills", SCRIPT)
LATE, AMENDED, VOIDED = "use-5", "use-7", "use-9"

FILES: Final = {
    "milepost.yaml": b"""
sources:
  till:
    owner: till@example.org
    types: {use: {schema: Use}}
    identities:
      - {entity: company, key: code, from: data.code, required: true}
      - {entity: company, key: name, from: data.name, label: true}
      - {entity: company, key: vat, from: data.vat, unique: true}
      - {entity: person, key: email, from: data.email}
signals:
  used: {on: use, fields: {minutes: data.minutes, region: data.region}}
  long_use: {on: use, when: data.minutes > 30.0, fields: {region: data.region}}
metrics:
  uses: {from: used, aggregate: count, dimensions: [region], unit: uses}
  long_uses: {from: long_use, aggregate: count, dimensions: [region], unit: uses}
  minutes: {from: used, aggregate: [sum(minutes), max(minutes)], dimensions: [region], unit: min}
  people: {from: used, aggregate: distinct(person), unit: people}
  long_rate: {formula: long_uses / uses, unit: ratio}
""",
    "schemas/Use.avsc": b"""
{"type": "record", "name": "Use", "fields": [
  {"name": "code", "type": "string"},
  {"name": "name", "type": ["null", "string"], "default": null},
  {"name": "vat", "type": ["null", "string"], "default": null},
  {"name": "email", "type": ["null", "string"], "default": null},
  {"name": "region", "type": "string", "default": "coast"},
  {"name": "note", "type": ["null", "string"], "default": null},
  {"name": "minutes", "type": "double"}]}
""",
}


@dataclass
class Taking(Worker):
    """What is appended is taken at once, an hour later each; what it says of itself is the driver's."""

    clock_ms: int = NOW

    @property
    def driver(self) -> Driver:
        found: Driver = self.reader.driver
        return found

    def now_ms(self) -> int:
        return self.clock_ms

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        offsets = []
        for one in outputs:
            self.clock_ms += HOUR
            offsets.append(self.driver.append(one.topic, one.partition, one.key, one.value, one.headers, self.clock_ms))
        self.driver.run()
        self.sent.extend(outputs)
        return offsets

    def topology(self) -> Mapping[str, Any]:
        return {"partitions": self.driver.partitions, "legs": describe.legs(), **describe.data(self.driver.partitions)}

    def status(self) -> Mapping[str, Any]:
        restoring = [0] if self.reader.restoring else []
        legs = {
            name: {
                "open": list(range(self.driver.partitions)),
                "restoring": restoring if name == "measure" else [],
                "next_offset": {},
                "lag": {str(number): 0 for number in range(self.driver.partitions)},
                "bytes": {"0": 1_500_000},
                "stalled": {},
                "fates": dict(fates),
            }
            for name, fates in self.driver.fates.items()
        }
        return {
            "worker": "worker-1",
            "ready": not restoring,
            "lag": dict.fromkeys(legs, 0),
            "legs": legs,
            "milestones": {},
        }


@dataclass(frozen=True)
class Shops:
    """The running site, and how it is asked."""

    site: Site

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.site.port}"

    @property
    def worker(self) -> Taking:
        found = self.site.worker
        assert isinstance(found, Taking)
        return found

    def get(self, path: str, **asked: Any) -> Any:
        with Client(self.url) as client:
            return client.get(path, **asked)


@contextmanager
def shops(home: Path) -> Iterator[Shops]:
    """The site with its data, until the block ends."""
    driver = Driver(b"a secret of thirty-two bytes long", partitions=3)
    driver.apply(ORG, FILES, NOW)
    for event, known_ms in _events():
        driver.produce(event, NOW, known_ms=known_ms)
    driver.run()
    driver.tick(NOW)
    driver.run()
    worker = Taking(Settings(home=home), Tables(driver.reader))
    for site in served(worker):
        yield Shops(site)


def _events() -> Iterator[tuple[dict[str, Any], int]]:
    """(event, known time)."""
    for number, (code, name) in enumerate(SHOPS.items()):
        yield use(f"open-{code}", START, code=code, name=name, vat=f"V{number}", minutes=1.0), START
    for number in range(2 * DAYS):
        at, code = START + number * DAY // 2 + HOUR, list(SHOPS)[number % 3]
        event = use(
            f"use-{number}", at, code=code, email=f"p{number % 5}@shop.example", minutes=float(number % 50),
            region=REGIONS[number % 7 % 3], note=SCRIPT,
        )  # fmt: skip
        yield event, at + (15 * DAY if event["id"] == LATE else 0)
        if event["id"] == AMENDED:
            yield {**event, "revision": 1, "data": {**event["data"], "minutes": 45.0}}, at + 10 * DAY
        if event["id"] == VOIDED:
            yield {**event, "revision": 1, "void": True}, at + 20 * DAY
    # South's number in an event of North: one would be two, so the link is refused.
    yield use("both", START + 12 * DAY, code="N1", vat="V1", minutes=2.0), START + 12 * DAY
    broken = use(f"broken {SCRIPT}", START + 13 * DAY, code="N1", minutes=1.0)
    del broken["data"]["minutes"]
    yield broken, START + 13 * DAY


def use(id: str, t_ms: int, **data: Any) -> dict[str, Any]:
    """An event of a use."""
    return {"org": ORG, "source": "till", "id": id, "type": "use", "time": written(t_ms), "data": data}
