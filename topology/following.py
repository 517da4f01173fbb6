"""Following: a record of a decision topic into the fold of decisions.  The worker and the driver do it alike."""

from __future__ import annotations

from typing import Any

from milepost.schemas import framing
from milepost.schemas.errors import ContractError
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.topology.acceptances import Acceptance
from milepost.topology.catalog import Catalog
from milepost.topology.decisions import Decisions
from milepost.topology.links import Decision, Link, Named
from milepost.topology.memberships import Membership, panes_of


def add_definition(decisions: Decisions, value: bytes | None, timestamp_ms: int) -> Catalog | None:
    """A record of `definitions`, a bundle or what a registry's ids mean (then the answer is None): raises
    ContractError or BundleError when it is neither."""
    if value is not None and value[:HEADER_BYTES] == wire("Registered").header:
        decisions.add_table(framing.table_of(wire("Registered").decode(value)))
        return None
    fields = wire("Bundle").decode(value or b"")
    return decisions.add_bundle(fields["org"], fields["files"], fields["k_ms"] or timestamp_ms, fields["attempt"])


def add_link(decisions: Decisions, value: bytes | None) -> None:
    """A record of `identity-links`: raises ContractError when it is neither a proposal nor a decision nor a
    completion nor an acceptance."""
    if value is not None and value[:HEADER_BYTES] == wire("Decision").header:
        _add_decision(decisions, wire("Decision").decode(value))
        return
    if value is not None and value[:HEADER_BYTES] == wire("Completion").header:
        said = wire("Completion").decode(value)
        decisions.completions(said["org"]).add(said["source"], said["k_ms"], said["until_ms"])
        return
    if value is not None and value[:HEADER_BYTES] == wire("Acceptance").header:
        _add_acceptance(decisions, wire("Acceptance").decode(value))
        return
    fields = wire("Link").decode(value or b"")
    entity = fields["entity"]
    link = Link(
        a=fields["a"], b=fields["b"], rank_a=fields["rank_a"], rank_b=fields["rank_b"], k_ms=fields["k_ms"],
        kind_a=(entity, fields["key_a"]), kind_b=(entity, fields["key_b"]),
        at=(fields["raw_partition"], fields["raw_offset"]),
    )  # fmt: skip
    decisions.add_link(fields["org"], link)


def _add_decision(decisions: Decisions, fields: dict[str, Any]) -> None:
    keys = tuple(Named(leaf=one["leaf"], kind=(one["entity"], one["kind"]), rank=one["rank"]) for one in fields["keys"])
    least = 1 if fields["what"] == "unlink" else 2
    if len(keys) < least:
        raise ContractError("contract_violation", f"{fields['what']} names {len(keys)} keys; at least {least} needed")
    at = fields["raw_partition"], fields["raw_offset"]
    if fields["what"] != "membership":
        decision = Decision(
            id=fields["id"], what=fields["what"], keys=keys, k_ms=fields["k_ms"], by=fields["by"], at=at
        )
        decisions.add_link(fields["org"], decision)
        return
    start, stop = panes_of(fields["from_ms"], fields["to_ms"])
    membership = Membership(
        id=fields["id"], rank=(fields["revision"], fields["repair"]), void=fields["void"], member=keys[0],
        company=keys[1], start=start, stop=stop, k_ms=fields["k_ms"], by=fields["by"], at=at,
    )  # fmt: skip
    decisions.add_membership(fields["org"], membership)


def _add_acceptance(decisions: Decisions, fields: dict[str, Any]) -> None:
    acceptance = Acceptance(
        id=fields["id"], rank=(fields["revision"], fields["repair"]), void=fields["void"], dispute=fields["dispute"],
        k_ms=fields["k_ms"], by=fields["by"],
    )  # fmt: skip
    decisions.acceptances(fields["org"]).add(acceptance)
