"""Agreement: whether the broker's topics and the worker's agents are those of the line (`milepost describe --check`).

The line describes itself in `topology/describe.py`; here it is held against what really runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from milepost.ops import provision
from milepost.ops.settings import Settings
from milepost.topology import describe


def as_data(settings: Settings) -> dict[str, Any]:
    """The line for machines, with this deployment's partitions, full names and policies."""
    return {
        **describe.data(settings.partitions),
        "namespace": settings.namespace,
        "policies": {topic.name: dict(topic.config) for topic in provision.wanted(settings)},
    }


def broker_differences(settings: Settings) -> list[str]:
    """Where the broker's topics differ from the line: absent, other partitions or policies, or not of the line."""
    admin = provision.admin_client(settings)
    targets = provision.wanted(settings)
    there = provision.found(admin, [topic.name for topic in targets])
    wrong = [f"{topic.name} is not at the broker" for topic in targets if topic.name not in there]
    for topic in targets:
        if topic.name in there:
            wrong += provision.differences(topic, there[topic.name])
    names = {topic.name for topic in targets}
    others = [name for name in _ours(admin, settings) if name not in names]
    return wrong + [f"{name} is at the broker and not of the line" for name in others]


def held_topics(settings: Settings) -> list[str]:
    """Topics that the cleaner leaves alone for longer than the line wants."""
    targets = provision.wanted(settings)
    there = provision.found(provision.admin_client(settings), [topic.name for topic in targets])
    return [one.name for one in targets if one.name in there and provision.held(one, there[one.name])]


def worker_differences(settings: Settings, said: Mapping[str, Any]) -> list[str]:
    """Where a worker (`GET /v1/topology`: what is really attached) differs from the line."""
    wanted, wrong = describe.data(settings.partitions), []
    for what in ("agents", "changelogs", "topics"):
        line, attached = wanted[what], _bare(said.get(what, {}), settings)
        wrong += [f"{what}: the worker has no {name}" for name in line if name not in attached]
        wrong += [f"{what}: {name} of the worker is not of the line" for name in attached if name not in line]
        wrong += [
            f"{what}: {name} is {attached[name]} in the worker, {line[name]} in the line"
            for name in line
            if name in attached and attached[name] != line[name]
        ]
    return wrong


def _bare(said: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Names without the deployment's namespace, on both sides of each pair."""
    prefix = settings.topic("")
    return {
        name.removeprefix(prefix): value.removeprefix(prefix) if isinstance(value, str) else value
        for name, value in said.items()
    }


def _ours(admin: Any, settings: Settings) -> Sequence[str]:
    """Topics that can only be this deployment's: those under its namespace, else those that look like Faust's."""
    names = sorted(admin.list_topics(timeout=10).topics)
    if settings.namespace:
        return [name for name in names if name.startswith(f"{settings.namespace}.")]
    return [name for name in names if name.startswith("milepost-") or (name.endswith("-changelog") and "." not in name)]
