"""Manual as files: the generated documentation of a bundle, from a folder or as in force, and the check of a copy.

The page follows from the definitions alone, so a committed copy that differs from what runs is a finding, not noise
(`milepost describe --docs --check FOLDER`).  What is so now (freshness, since when, events of the log) is on the
worker's `/docs`.
"""

from __future__ import annotations

import difflib
import importlib.resources
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import milepost
from milepost.ops.apply import attempts, read_files
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError
from milepost.topology import bundle_picture, openlineage
from milepost.topology.catalog import load_bundle
from milepost.topology.definitions import Catalog
from milepost.topology.lenient import lenient_bundle, nothing_holds
from milepost.topology.manual_entries import manual
from milepost.topology.manual_markdown import markdown

PAGE: Final = "DEFINITIONS.md"
"""The page's name in a folder; beside `milepost.yaml`, where a code host shows both."""
EVENTS: Final = "openlineage.ndjson"
PRODUCER: Final = f"urn:milepost:{milepost.__version__}"
DIFFERENCE_MAX: Final = 400
"""Lines of a difference that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defined:
    """Definitions to be described.  at_ms: since when they are in force; of a folder: now"""

    org: str
    catalog: Catalog
    at_ms: int


def of_folder(folder: Path, org: str | None) -> Defined:
    """The definitions of a folder.  Raises BundleError or DeclarationError."""
    return Defined(org=org or "organisation", catalog=load_bundle(read_files(folder)), at_ms=int(time.time() * 1000))


def in_force(settings: Settings, org: str | None) -> Defined:
    """The definitions that an organisation applied last; without a name, of the only one there is."""
    newest: dict[str, Defined] = {}
    for attempt in attempts(settings):
        catalog = lenient_bundle(attempt.files)
        if not nothing_holds(catalog):
            newest[attempt.org] = Defined(org=attempt.org, catalog=catalog, at_ms=attempt.k_ms or attempt.at_ms)
    if org is None and len(newest) == 1:
        return next(iter(newest.values()))
    if org is None or org not in newest:
        known = ", ".join(sorted(newest)) or "none"
        said = "no organisation was named" if org is None else f"{org} has no definitions"
        raise DeclarationError(f"{said}; those with definitions: {known}; fix: --org NAME, or --bundle FOLDER")
    return newest[org]


def page(catalog: Catalog) -> str:
    """The page of a catalog."""
    return markdown(manual(catalog), bundle_picture.mermaid(catalog))


def page_of(bundle: str) -> str:
    """The page of a bundle that travels in the package, as `demo_bundle`."""
    root = importlib.resources.files("milepost.ops").joinpath(bundle)
    with importlib.resources.as_file(root) as folder:
        return page(load_bundle(read_files(folder)))


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file of a folder, which is made if it is not there.  Raises DeclarationError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    except OSError as error:
        raise DeclarationError(f"{folder / name} cannot be written: {error}") from error
    return folder / name


def difference(folder: Path, text: str) -> str:
    """What differs between the page of a folder and what it must be, as a unified diff; "" when nothing does."""
    place = folder / PAGE
    try:
        there = place.read_text() if place.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{place} cannot be read: {error}") from error
    lines: Iterator[str] = difflib.unified_diff(
        there.splitlines(), text.splitlines(), str(place), "the definitions", lineterm=""
    )
    shown = list(islice(lines, DIFFERENCE_MAX))
    if len(shown) == DIFFERENCE_MAX:
        shown.append(f"… more; fix: milepost describe --docs {folder}")
    return "\n".join(shown)


def lineage_events(defined: Defined) -> list[dict[str, Any]]:
    """The lineage as OpenLineage's events."""
    return openlineage.events(defined.catalog, defined.org, at_ms=defined.at_ms, producer=PRODUCER)
