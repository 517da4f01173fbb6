"""Merge, unmerge, re-attribution: what a question answers after decisions about identity (semantics S2, S5)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.schemas import keys
from milepost.topology import memberships
from milepost.topology.asked import asked as asked_of
from milepost.topology.bases import Span
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.identities import Identities
from milepost.topology.links import Named
from milepost.topology.memberships import Membership, Memberships
from milepost.topology.panes import PANE_MS
from milepost.topology.questions import Question, Questions
from milepost.topology.refusals import BadParameter, QuestionError, UnknownKey
from milepost.topology.steps import run
from tests.support.small import DAY, HOUR, SECRET, T0, iso

ORG = "acme"
FILES = {
    "milepost.yaml": b"""
sources:
  app:
    types: {use: {schema: Use}}
    identities:
      - {entity: company, key: code, from: data.code}
      - {entity: company, key: name, from: data.name, label: true}
      - {entity: company, key: vat, from: data.vat, unique: true}
      - {entity: person, key: email, from: data.email}
      - {entity: person, key: login, from: data.login, limit: 2}
signals:
  used: {on: use, fields: {minutes: data.minutes}}
metrics:
  uses: {from: used, aggregate: count}
  minutes: {from: used, aggregate: [sum(minutes), max(minutes), last(minutes)]}
  people: {from: used, aggregate: distinct(person)}
identity:
  blocked: {code: [test]}
  free_mail: {kinds: [email], domains: [mail.example]}
""",
    "schemas/Use.avsc": b"""
{"type": "record", "name": "Use", "fields": [
  {"name": "code", "type": ["null", "string"], "default": null},
  {"name": "name", "type": ["null", "string"], "default": null},
  {"name": "vat", "type": ["null", "string"], "default": null},
  {"name": "email", "type": ["null", "string"], "default": null},
  {"name": "login", "type": ["null", "string"], "default": null},
  {"name": "minutes", "type": "double", "default": 1.0}]}
""",
}
NOW = T0 + 100 * DAY
METRICS = ("uses", "minutes_sum", "minutes_max", "minutes_last", "people")


class World:
    """A driver with a counter for ids.  Every event is known when it is sent."""

    def __init__(self, partitions: int = 3) -> None:
        self.driver = Driver(SECRET, partitions=partitions)
        self.driver.apply(ORG, FILES, T0 - HOUR)
        self.sent = 0

    def send(self, type: str, source: str, t_ms: int, k_ms: int, more: dict[str, Any], data: dict[str, Any]) -> str:
        self.sent += 1
        event = {"org": ORG, "source": source, "id": f"e{self.sent}", "type": type, "time": iso(t_ms), "data": data}
        self.driver.produce({**event, **more}, NOW, known_ms=k_ms)
        self.driver.run()
        return f"e{self.sent}"

    def use(self, t_ms: int, k_ms: int | None = None, **data: Any) -> str:
        return self.send("use", "app", t_ms, t_ms if k_ms is None else k_ms, {}, data)

    def decide(self, what: str, k_ms: int, more: dict[str, Any] | None = None, **data: Any) -> str:
        return self.send(f"milepost.{what}", "milepost", k_ms, k_ms, more or {}, data)

    def value(self, metric: str, company: str | None = None, at: int | None = None, basis: str | None = None) -> Any:
        question = Question(metric=metric, company=company, now_ms=NOW, at_ms=at, basis=basis)
        return run(Questions(self.driver.reader).value(question))["value"]

    def values(self, *companies: str, **asked: Any) -> list[Any]:
        return [self.value(metric, company, **asked) for company in companies for metric in METRICS]

    def by_company(self, metric: str = "uses", **asked: Any) -> dict[str, Any]:
        return self.broken_down("company", metric, **asked)

    def broken_down(self, by: str, metric: str = "uses", **asked: Any) -> dict[str, Any]:
        question = Question(metric=metric, now_ms=NOW, **asked)
        answer = run(Questions(self.driver.reader).breakdown(question, by))
        return {row["label"]: row["value"] for row in answer["rows"]}

    @property
    def identities(self) -> Identities:
        return Identities(self.driver.reader, Questions(self.driver.reader), ORG)

    def cells(self) -> str:
        told = digest(self.driver.reader)
        return str({name: value for name, value in told.items() if name not in ("total", "keys", "seen")})


def two() -> World:
    """Two companies with three uses each by persons of whom one is the same."""
    world = World()
    for i in range(3):
        world.use(T0 + i * HOUR, code="A", email=f"p{i}@a.example", minutes=float(i))
        world.use(T0 + i * HOUR, code="B", email=f"p{i + 2}@a.example", minutes=10.0 + i)
    return world


def test_merge_then_unmerge_leaves_every_answer_as_it_was() -> None:
    """Merge then unmerge leaves every answer as it was: every metric of both adds up while they are one, after the unlink
    each answers as before, and what was received in between is on its own side."""
    world = two()
    before = world.values("code:A", "code:B")
    world.decide("link", T0 + DAY, keys=["code:A", "code:B"])
    assert world.values("code:A") == world.values("code:B") == [6, 36, 12, 12, 5]
    assert world.by_company() == {"A": 6}
    world.decide("unlink", T0 + 2 * DAY, keys=["code:B"])
    assert world.values("code:A", "code:B") == before
    world.decide("link", T0 + 3 * DAY, keys=["code:B", "code:A"])
    world.use(T0 + 3 * DAY + HOUR, code="A", minutes=5.0)
    assert world.value("uses", "code:B") == 7
    world.decide("unlink", T0 + 4 * DAY, keys=["code:B"])
    assert world.values("code:B") == before[5:]
    assert world.value("uses", "code:A") == 4 and world.value("minutes_last", "code:A") == 5


def test_the_digest_of_cells_is_the_same_before_and_after_a_merge() -> None:
    """The digest of cells is the same before and after a merge: a decision writes no cell."""
    world = two()
    before = world.cells()
    world.decide("link", T0 + DAY, keys=["code:A", "code:B"])
    world.decide("unlink", T0 + 2 * DAY, keys=["code:A"])
    assert world.cells() == before and "'cells'" in before
    world.use(T0, code="A")
    assert world.cells() != before


def test_as_shown_before_the_merge_still_shows_two() -> None:
    """as_shown before the merge still shows two; corrected shows one at any time; after the unlink the time between still
    shows one."""
    world = two()
    world.decide("link", T0 + 2 * DAY, keys=["code:A", "code:B"])
    early, between, late = T0 + DAY, T0 + 3 * DAY, T0 + 5 * DAY
    assert world.value("uses", "code:A", early, "as_shown") == 3
    assert world.value("uses", "code:A", early, "corrected") == 6
    world.decide("unlink", T0 + 4 * DAY, keys=["code:A"])
    assert [world.value("uses", "code:A", at, "as_shown") for at in (early, between, late)] == [3, 6, 3]
    assert world.value("uses", "code:A", between, "corrected") == 3


def test_april_stays_with_the_april_employer() -> None:
    """April stays with the April employer: what a person does without a company is the employer's of the time when it
    happened, whatever comes later."""
    world = World()
    world.use(T0, code="A", minutes=100.0)
    world.use(T0, code="B", minutes=200.0)
    april, may = T0 + 10 * DAY, T0 + 40 * DAY
    for t_ms in (april, april + HOUR, may):
        world.use(t_ms, email="ann@a.example", minutes=7.0)
    assert world.by_company() == {"A": 1, "B": 1} and world.value("uses") == 5
    world.decide("membership", T0 + 50 * DAY, member="email:ann@a.example", company="code:A", to=iso(T0 + 30 * DAY))
    world.decide(
        "membership", T0 + 50 * DAY, member="email:ann@a.example", company="code:B", **{"from": iso(T0 + 30 * DAY)}
    )
    assert world.by_company() == {"A": 3, "B": 2} and world.value("uses") == 5
    assert world.value("minutes_sum", "code:A") == 114 and world.value("people", "code:B") == 1
    assert world.value("uses", "code:A", T0 + 45 * DAY, "as_shown") == 1, "nobody knew of it yet"
    assert world.value("uses", "code:A", april + 1, "corrected") == 1
    assert world.value("uses", "code:A", T0 + 11 * DAY, "corrected") == 3
    series = run(
        Questions(world.driver.reader).series(
            Question(metric="uses", company="code:A", now_ms=NOW), T0 + 9 * DAY, T0 + 12 * DAY, "1d"
        )
    )
    assert [point["value"] for point in series["points"]] == [None, 2, None]


def test_a_breakdown_by_person_is_of_what_names_no_company() -> None:
    """Each person has what lies under any of their keys; with a company, only while they belonged to it."""
    world = World()
    world.use(T0, code="A", email="ann@a.example")
    for hours in (5, 6, 30):
        world.use(T0 + hours * HOUR, email="ann@a.example")
    world.use(T0 + HOUR, login="bob")
    world.use(T0 + HOUR, email="bob@b.example", login="bob")
    assert world.broken_down("person") == {"ann@a.example": 3, "bob@b.example": 2}
    world.decide("membership", T0 + DAY, member="email:ann@a.example", company="code:A", to=iso(T0 + 6 * HOUR))
    assert world.broken_down("person", company="code:A") == {"ann@a.example": 1}
    assert world.broken_down("person") == {"ann@a.example": 3, "bob@b.example": 2}
    with pytest.raises(QuestionError) as refused:
        world.broken_down("persn")
    assert refused.value.guess == "person"


def test_panes_one_by_one_hold_what_their_spans_hold() -> None:
    """What plans read pane by pane is the same as of spans of one pane, also of persons while they belong to a company."""
    world = World()
    world.use(T0, code="A", minutes=100.0)
    for hours in (5, 6, 30, 200):
        world.use(T0 + hours * HOUR, email="ann@a.example", minutes=7.0)
    left = T0 + 40 * HOUR
    world.decide("membership", T0 + 50 * DAY, member="email:ann@a.example", company="code:A", to=iso(left))
    questions = Questions(world.driver.reader)
    asked = run(asked_of(world.driver.reader, Question(metric="uses", company="code:A", now_ms=NOW)))
    first, last = (T0 + 4 * HOUR) // PANE_MS, (T0 + 30 * DAY) // PANE_MS
    head = (Span(start=0, stop=first),)
    singly = tuple(Span(start=pane, stop=pane + 1) for pane in range(first, last))

    def held(spans: tuple[Span, ...], panes: tuple[int, int] | None = None) -> dict[int, int]:
        (tallies,) = run(questions._found(asked, spans, None, panes)).tallies.values()
        return {slot: tally.n for (_, slot), tally in tallies.items()}

    assert held(head, (first, last)) == held(head + singly) == {0: 1, 1 + 4: 1, 1 + 8: 1, 1 + 26 * 4: 1}


def test_a_membership_is_changed_and_taken_back() -> None:
    """A higher revision of the same id replaces it from its own k on, void takes it back; as_shown keeps what was."""
    world = World()
    world.use(T0, code="A")
    world.use(T0 + DAY, email="ann@a.example")
    world.use(T0 + 3 * DAY, login="ann")
    world.decide("link", T0 + 4 * DAY, entity="person", keys=["email:ann@a.example", "login:ann"])
    data = {"member": "login:ann", "company": "code:A"}
    id = world.decide("membership", T0 + 5 * DAY, **data)
    assert world.value("uses", "code:A") == 3, "the membership holds for all keys of the person"
    world.decide("membership", T0 + 6 * DAY, {"id": id, "revision": 1}, **data, to=iso(T0 + 2 * DAY))
    assert world.value("uses", "code:A") == 2
    world.decide("membership", T0 + 7 * DAY, {"id": id, "revision": 2, "void": True}, **data)
    assert world.value("uses", "code:A") == 1
    shown = [world.value("uses", "code:A", T0 + day * DAY - HOUR, "as_shown") for day in (5, 6, 7, 8)]
    assert shown == [1, 3, 2, 1]


def test_overlapping_memberships_count_an_event_once_a_company() -> None:
    """Two memberships of one person with one company, merged or not, do not count twice; two employers each count it."""
    world = World()
    for code in ("A", "B", "C"):
        world.use(T0, code=code)
    world.use(T0 + DAY, email="ann@a.example")
    for code in ("A", "A", "B", "C"):
        world.decide("membership", T0 + 2 * DAY, member="email:ann@a.example", company=f"code:{code}")
    assert world.by_company() == {"A": 2, "B": 2, "C": 2} and world.value("uses") == 4
    world.decide("link", T0 + 3 * DAY, keys=["code:A", "code:B"])
    assert world.by_company() == {"A": 3, "C": 2}


@pytest.mark.parametrize("seed", range(8))
def test_distinct_is_exact_under_random_merges(seed: int) -> None:
    """distinct equals the count of roots by brute force after each random link and unlink of persons and companies."""
    chance = random.Random(seed)
    world = World(partitions=(1, 3)[seed % 2])
    met: dict[str, set[str]] = {"A": set(), "B": set()}
    for i in range(24):
        code, who = chance.choice("AB"), chance.choice("pqrstuvw")
        met[code].add(who)
        world.use(T0 + i * HOUR, code=code, email=who)
    same = [{who} for who in "pqrstuvw"]
    for step in range(6):
        a, b = chance.sample(sorted(met["A"] | met["B"]), 2)
        whole = next(one for one in same if a in one)
        if len(whole) > 1 and step % 3 == 2:
            world.decide("unlink", T0 + (10 + step) * DAY, entity="person", keys=[f"email:{a}"])
            same = [one - {a} for one in same] + [{a}]
            edges_left = run(world.driver.decisions.components(ORG, None))
            leaf = {who: keys.leaf(world.driver.org_keys[ORG], "person", "email", who) for who in "pqrstuvw"}
            rest = whole - {a}
            groups: dict[bytes, set[str]] = {}
            for who in rest:
                groups.setdefault(edges_left.root(leaf[who]), set()).add(who)
            same = [one for one in same if one and not one & rest] + list(groups.values())
        else:
            world.decide("link", T0 + (10 + step) * DAY, entity="person", keys=[f"email:{a}", f"email:{b}"])
            other = next(one for one in same if b in one)
            if whole is not other:
                same = [one for one in same if one is not whole and one is not other] + [whole | other]
        for code in "AB":
            assert world.value("people", f"code:{code}") == sum(1 for one in same if one & met[code])
        assert world.value("people") == sum(1 for one in same if one & (met["A"] | met["B"]))


@pytest.mark.parametrize(
    "value", ["null", "NULL", " none", "unknown", "n/a", "-1", "0", "000", "00000000-0000-0000-0000-000000000000", "test", "gmail.com"]
)  # fmt: skip
def test_a_value_that_means_nothing_joins_nobody(value: str) -> None:
    """Two companies that both come with a blocked code stay two: the events have no such key."""
    world = World()
    world.use(T0, code=value, name="Ann's")
    world.use(T0, code=value, name="Bob's")
    assert world.by_company() == {"Ann's": 1, "Bob's": 1}
    assert world.driver.topics["identity-links"][0] == []
    with pytest.raises(QuestionError):
        world.value("uses", f"code:{value}")


def test_an_event_of_blocked_keys_only_is_a_dead_letter() -> None:
    """It names nobody."""
    world = World()
    world.use(T0, code="unknown", email="mail.example")
    assert [letter["reason"] for letter in world.driver.dead_letters] == ["missing_key"]


def test_a_refused_link_waits_for_review_until_a_person_links() -> None:
    """Two values of a unique key in one event: the refusal says who proposed it, when and why; a link by hand resolves
    it."""
    world = World()
    world.use(T0, code="A", vat="V1")
    world.use(T0 + HOUR, code="A", vat="V2")
    (waiting,) = run(world.identities.review())
    assert waiting["why"] == "unique" and waiting["known_from"] == iso(T0 + HOUR)[:19] + "Z"
    assert sorted(waiting["keys"]) == ["code:A", "vat:V2"] and waiting["record"].startswith("raw-events/")
    assert world.by_company() == {"A": 2}
    with pytest.raises(QuestionError):
        world.value("uses", "vat:V3")
    world.decide("link", T0 + DAY, keys=["code:A", "vat:V2"], by="ann")
    assert run(world.identities.review()) == []
    told = run(Questions(world.driver.reader).companies().resolve("company", "vat", "V2", None))
    assert [(one["how"], one["by"]) for one in told["links"]] == [("by hand", "ann")]
    before = run(Questions(world.driver.reader).companies().resolve("company", "vat", "V2", T0 + 2 * HOUR))
    assert before["links"] == [] and before["metakey"] == before["leaf"] != told["metakey"]


def test_a_dry_run_says_what_would_become_one_thing() -> None:
    """The things before and after, with their main metrics as they then do read; nothing is changed by asking."""
    world = two()
    effect = run(world.identities.preview("link", "company", ["code:A", "code:B"], NOW))
    assert [one["metrics"]["uses"] for one in effect["before"]] == [3, 3]
    assert [one["metrics"]["uses"] for one in effect["after"]] == [6] and effect["changes"]
    assert world.value("uses", "code:A") == 3
    world.decide("link", T0 + DAY, keys=["code:A", "code:B"])
    (after,) = effect["after"]
    assert after["metrics"] == {metric: world.value(metric, "code:A") for metric in after["metrics"]}
    apart = run(world.identities.preview("unlink", "company", ["code:B"], NOW))
    assert [one["metrics"]["uses"] for one in apart["after"]] == [3, 3]
    assert not run(world.identities.preview("link", "company", ["code:A", "code:B"], NOW))["changes"]


def test_what_is_not_known_is_refused_with_a_guess() -> None:
    """Entity, kind and value are each guessed; too few keys are refused."""
    world = two()
    with pytest.raises(UnknownKey) as kind:
        run(world.identities.keys("link", "company", ["cod:A", "code:B"]))
    assert kind.value.guess == "code:A"
    with pytest.raises(UnknownKey) as entity:
        run(world.identities.key("companys", "code:A"))
    assert entity.value.guess == "company"
    for texts in (["code:A"], ["code:A", "code:A"]):
        with pytest.raises(BadParameter):
            run(world.identities.keys("link", "company", texts))
    with pytest.raises(UnknownKey):
        run(world.identities.membership("person", "email:nobody", "code:A", None, None))


@pytest.mark.parametrize(
    ("what", "more", "data"),
    [
        ("link", {}, {"keys": ["code:A"]}),
        ("link", {}, {"keys": ["code:A", "nokind:B"]}),
        ("link", {}, {"keys": ["code:A", "code:null"]}),
        ("link", {"void": True}, {"keys": ["code:A", "code:B"]}),
        ("link", {"revision": 1}, {"keys": ["code:A", "code:B"]}),
        ("unlink", {}, {"keys": []}),
        ("membership", {}, {"member": "code:A", "company": "code:B", "entity": "company"}),
        ("membership", {}, {"member": "email:p", "company": "code:B", "from": "yesterday"}),
        ("membership", {}, {"member": "email:p", "company": "code:B", "from": iso(T0), "to": iso(T0)}),
    ],
)
def test_a_decision_that_does_not_hold_is_a_dead_letter(what: str, more: dict[str, Any], data: dict[str, Any]) -> None:
    """It changes nothing, and can be repaired or sent again like any event."""
    world = two()
    world.decide(what, T0 + DAY, more, **data)
    assert [letter["reason"] for letter in world.driver.dead_letters] == ["contract_violation"]
    assert world.by_company() == {"A": 3, "B": 3}


def test_the_memberships_of_one_key_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound those with the least known times count, in whatever order they come."""
    monkeypatch.setattr(memberships, "MEMBERSHIPS_MAX", 3)
    person, company = (Named(leaf=bytes([n]) * 16, kind=("", ""), rank=0) for n in (1, 2))
    held = Memberships()
    for n in (5, 1, 4, 2, 3):
        one = Membership(
            id=bytes([n]), rank=(0, 0), void=False, member=person, company=company, start=n, stop=n + 1, k_ms=n
        )
        held.add(one)
    assert [one.start for one in held.of([company.leaf], None)] == [1, 2, 3]
