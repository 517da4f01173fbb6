"""Following: a record of a decision topic into the fold of decisions.  The worker and the driver do it alike."""

from __future__ import annotations

from milepost.schemas.serde import wire
from milepost.topology.decisions import Decisions, Link


def add_definition(decisions: Decisions, value: bytes | None, timestamp_ms: int) -> None:
    """A record of `definitions`: raises ContractError or BundleError when it is not a bundle."""
    fields = wire("Bundle").decode(value or b"")
    decisions.add_bundle(fields["org"], fields["files"], fields["k_ms"] or timestamp_ms, fields["attempt"])


def add_link(decisions: Decisions, value: bytes | None) -> None:
    """A record of `identity-links`: raises ContractError when it is not a link."""
    fields = wire("Link").decode(value or b"")
    link = Link(a=fields["a"], b=fields["b"], rank_a=fields["rank_a"], rank_b=fields["rank_b"], k_ms=fields["k_ms"])
    decisions.add_link(fields["org"], link)
