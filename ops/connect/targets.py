"""Targets: which organisation events are for, and whether its definitions know their source."""

from __future__ import annotations

from collections.abc import Mapping

from milepost.ops.client import Client
from milepost.schemas.errors import DeclarationError


def organisation_of(client: Client, org: str | None) -> str:
    """The organisation named, else the only one there is.  Raises Refused where there are several, or none."""
    return org if org is not None else str(client.get("/v1/metrics")["org"])


def needs_source(client: Client, org: str, source: str, files: Mapping[str, bytes], kind: str) -> None:
    """DeclarationError unless the definitions of `org` that are in force know `source`, as those in `files` do."""
    texts = {name: text.decode() for name, text in files.items() if name == "milepost.yaml" or name.endswith(".avsc")}
    planned = client.post("/v1/definitions:plan", {"org": org, "files": texts})
    if any((one["what"], one["name"], one["how"]) == ("source", source, "added") for one in planned["changes"]):
        fix = f"`milepost init FOLDER --for {kind}`, `milepost apply FOLDER --org {org}`"
        if planned["current"]:
            fix = f"`milepost init FOLDER --for {kind}`, and add what it holds to the bundle of {org}"
        raise DeclarationError(f"the definitions of {org} know no source {source}: nothing was sent; fix: {fix}")
