"""Walking: everything that is to be said of an organisation's milestones, by a walk over its log, without the leg."""

from __future__ import annotations

from collections.abc import Sequence

from milepost.topology.reading import Reader
from milepost.topology.recognition import Recogniser
from milepost.topology.recognitions import Recognition, Said, Subject
from milepost.topology.steps import run


def walked(reader: Reader, org: str, cuts: Sequence[int], first: int | None = None) -> list[Recognition]:
    """What is said up to each of `cuts`, one walk after the other, as a worker goes on.

    first: the bucket end to begin with; default where the organisation's plans begin, and nothing where it has none
    """
    recogniser, found = Recogniser(reader), list[Recognition]()
    first = recogniser.plans_begin(org) if first is None else first
    said: dict[Subject, Said] = {}

    def take(some: Sequence[Recognition]) -> None:
        for one in some:
            said[one.subject] = Said.after(said.get(one.subject), one)
            found.append(one)

    if first is None:
        return found
    for cut in cuts:
        for start, stop in recogniser.stretches(org, first, cut):
            take(run(recogniser.closings(org, start, said)))
            for root, known in sorted(run(recogniser.companies_of(org, stop, lambda _: True)).items()):
                take(run(recogniser.company(org, root, max(start, known), stop, said)))
        first = cut + 1
    return found
