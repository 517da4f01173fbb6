"""Identities: what a decision by hand would do, what waits for one, and the decision as an event of ours.

{entity, keys} --> keys found (or refused with a guess) --> components before and after --> metrics before and after
                                                       \\-> a raw event of `milepost` (topology/by_hand.py)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from milepost.schemas import keys
from milepost.schemas.errors import ContractError
from milepost.schemas.times import time_ms
from milepost.topology import by_hand
from milepost.topology.companies import Companies, KeyRow, written_link
from milepost.topology.graph import Components
from milepost.topology.links import Decision, Named
from milepost.topology.protection import COMPANY
from milepost.topology.questions import Question, Questions
from milepost.topology.reading import Reader
from milepost.topology.refusals import BadParameter, UnknownKey, closest
from milepost.topology.steps import Steps

METRICS_MAX: Final = 5
"""Metrics that a preview shows: the first ones of the bundle."""
THINGS_MAX: Final = 20
"""Things that a preview shows on either side at most."""
KEYS_SHOWN_MAX: Final = 100

What = Literal["link", "unlink"]


class Identities:
    """The identities of one organisation."""

    def __init__(self, reader: Reader, questions: Questions, org: str) -> None:
        self._reader, self._questions, self.org = reader, questions, org
        self._catalog = reader.decisions.history[org][-1].catalog
        self._companies = Companies(reader, org, self._catalog.key_rank)

    def key(self, entity: str, text: str) -> Steps[KeyRow]:
        """The key that `key:value` names.  Raises UnknownKey, BadParameter."""
        kind, colon, value = text.partition(":")
        if not colon:
            raise BadParameter(f"{text[:64]!r} is no key:value", fix=f"{entity} keys are written key:value")
        entities = sorted({of for of, _ in self._catalog.key_rank})
        if entity not in entities:
            guess = closest(entity, entities)
            raise UnknownKey(f"there is no entity {entity[:64]!r}", guess=guess, fix=f"one of {', '.join(entities)}")
        kinds = self._companies.kinds(entity)
        if kind not in kinds:
            guess = closest(kind, kinds)
            raise UnknownKey(
                f"{entity} has no key {kind[:64]!r}",
                guess=f"{guess}:{value}"[:200] if guess else None,
                fix=f"one of {', '.join(kinds)}",
            )
        row = yield from self._companies.row(self._companies.leaf_of(entity, kind, value))
        if row is None:
            near = closest(value, (yield from self._companies.some_values(kind))) if entity == COMPANY else None
            raise UnknownKey(
                f"no event has named {entity} {kind} {value[:64]!r}",
                guess=f"{kind}:{near}" if near else None,
                fix="GET /v1/companies?q=… searches companies",
            )
        return row

    def keys(self, what: What, entity: str, texts: Sequence[str]) -> Steps[list[KeyRow]]:
        """The keys that a decision names, each once."""
        least = 1 if what == "unlink" else 2
        if not least <= len(set(texts)) <= by_hand.KEYS_MAX:
            raise BadParameter(
                f"keys are {least} to {by_hand.KEYS_MAX} different ones, {len(set(texts))} came",
                fix='"keys": ["airline_name:…", "carrier_code:…"]',
            )
        found = []
        for text in dict.fromkeys(texts):
            found.append((yield from self.key(entity, text)))
        return found

    def preview(self, what: What, entity: str, texts: Sequence[str], now_ms: int) -> Steps[dict[str, Any]]:
        """What a link or unlink would do: the things there are before and after, and how their metrics would read."""
        named = yield from self.keys(what, entity, texts)
        decisions = self._reader.decisions
        decision = Decision(
            id=b"\xff" * 16,
            what=what,
            keys=tuple(
                Named(leaf=one.leaf, kind=(entity, one.kind), rank=self._catalog.key_rank[entity, one.kind])
                for one in named
            ),
            k_ms=now_ms,
        )
        before = yield from decisions.components(self.org, None)
        after = yield from decisions.graph(self.org).with_decision(decision).folded(None, self._catalog.protection)
        touched = {leaf for one in named for leaf in before.leaves(before.root(one.leaf))}
        left = yield from self._things(entity, before, touched, now_ms)
        right = yield from self._things(entity, after, touched, now_ms)
        refused = [one.why for one in after.refused if one.link.by_hand and one.link.k_ms == now_ms]
        same = {one["metakey"] for one in left} == {one["metakey"] for one in right} and len(left) == len(right)
        return {
            "what": what,
            "entity": entity,
            "keys": [f"{one.kind}:{one.value}" for one in named],
            "changes": not same,
            "before": left,
            "after": right,
            "refused": refused,
        }

    def review(self) -> Steps[list[dict[str, Any]]]:
        """The review queue: proposals that were refused and whose ends are still two, in the order of their k."""
        components = yield from self._reader.decisions.components(self.org, None)
        refused = components.refused
        rows = yield from self._companies.rows({leaf for one in refused for leaf in (one.link.a, one.link.b)})
        return [
            {
                **written_link(one.link, rows),
                "entity": one.link.kind_a[0],
                "why": one.why,
                "means": MEANS[one.why],
                "fix": "POST /v1/identity/link with both keys joins them after all",
            }
            for one in refused
        ]

    def membership(self, entity: str, member: str, company: str, from_: str | None, to: str | None) -> Steps[None]:
        """Check a membership before it is sent.  Raises QuestionError."""
        if entity == COMPANY:
            raise BadParameter("a member is no company", fix="link two companies, or name a person or a device")
        yield from self.key(entity, member)
        yield from self.key(COMPANY, company)
        try:
            times = [None if one is None else time_ms(one) for one in (from_, to)]
        except ContractError as error:
            raise BadParameter(f"from or to: {error.detail}", fix="2013-05-12T12:00:00Z") from error
        if times[0] is not None and times[1] is not None and times[0] >= times[1]:
            raise BadParameter("from lies before to")

    def _things(
        self, entity: str, components: Components, leaves: Iterable[bytes], now_ms: int
    ) -> Steps[list[dict[str, Any]]]:
        """The components of some leaves: keys, and of companies the main metrics as of now."""
        roots = sorted({components.root(leaf) for leaf in leaves})[:THINGS_MAX]
        found = []
        for root, company in (yield from self._companies.companies(roots, components)).items():
            told: dict[str, Any] = {
                "metakey": keys.metakey(root),
                "name": company.name,
                "keys": [f"{row.kind}:{row.value}" for row in company.keys[:KEYS_SHOWN_MAX]],
            }
            if entity == COMPANY:
                told["metrics"] = {}
                for metric in list(self._catalog.metrics)[:METRICS_MAX]:
                    question = Question(metric=metric, now_ms=now_ms, org=self.org, company=keys.metakey(root))
                    answer = yield from self._questions.value(question, components)
                    told["metrics"][metric] = answer["value"]
            found.append(told)
        return found


MEANS: Final = {
    "unlinked": "a person has taken these apart",
    "unique": "two values of a kind that is declared unique would be one thing",
    "limit": "there would be more values of a kind than its limit",
    "too_large": "there would be more keys than a thing may have",
}
