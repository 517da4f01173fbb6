"""Completing: what a shell offers while one types, beyond the names of commands and options.

Names that the code knows are offered at once.  Names of definitions are asked of the worker, if one answers within a
second; where none does, nothing is offered: a shell must not show an error in the middle of a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from milepost.schemas.errors import MilepostError

ANSWER_S: Final = 1.0
NAMES_MAX: Final = 1000


def topics(incomplete: str) -> list[str]:
    """Topics of the line."""
    from milepost.topology.line import all_topics

    return _beginning((topic.name for topic in all_topics()), incomplete)


def starters(incomplete: str) -> list[str]:
    """What `init` writes bundles for."""
    from milepost.ops.starter import KINDS

    return _beginning(KINDS, incomplete)


def systems(incomplete: str) -> list[str]:
    """Systems whose posts are taken."""
    from milepost.ops.connect.webhooks import EXAMPLES

    return _beginning(EXAMPLES, incomplete)


def bases(incomplete: str) -> list[str]:
    """Bases of an answer."""
    return _beginning(("latest", "corrected", "as_shown"), incomplete)


def metrics(incomplete: str) -> list[str]:
    """Metrics of the definitions in force."""
    return _beginning((str(one["name"]) for one in _asked("/v1/metrics", "metrics")), incomplete)


def _asked(path: str, items: str) -> list[dict[str, Any]]:
    """A list of the worker's, at most its first page; [] where none answers."""
    from milepost.ops import processes
    from milepost.ops.access import bearer
    from milepost.ops.client import Client
    from milepost.ops.settings import read_settings

    try:
        settings = read_settings()
        if not processes.answers(settings.port, settings.host):
            return []
        with Client(settings.url, token=lambda: bearer(settings), patience_s=0.0, answer_s=ANSWER_S) as client:
            return list(client.get(path)[items])
    except MilepostError:
        return []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)][:NAMES_MAX]
