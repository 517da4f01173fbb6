"""The demo's bundle for another organisation than the airport: its plans are on bridges of the airport's own."""

from __future__ import annotations

from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG


def demo_of(org: str) -> dict[str, bytes]:
    """The demo's files with `org`'s bridges."""
    files = demo_bundle()
    files["milepost.yaml"] = files["milepost.yaml"].replace(f'"{ORG}/*"'.encode(), f'"{org}/*"'.encode())
    return files
