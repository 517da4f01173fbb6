"""Starter: a commented bundle to begin with, its tests, and the JSON Schema that editors check it by.

For orders of a shop, or (`--for git`) for what `milepost connect git` sends.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import orjson

from milepost.ops.manual import PAGE
from milepost.schemas.errors import DeclarationError
from milepost.topology.catalog import editor_schema

SCHEMA: Final = "milepost.schema.json"
"""The first line of the starter's milepost.yaml points to it."""
KINDS: Final[Mapping[str, str]] = {"shop": "starter_bundle", "git": "git_bundle"}
"""What a starter is for -> its folder."""


def write(folder: Path, kind: str = "shop", *, force: bool = False, schema_only: bool = False) -> list[Path]:
    """Write the starter into a folder; answers the files.

    kind:        one of KINDS
    force:       over files that are there;  without it none is written when one is there
    schema_only: the schema alone, over the one that is there: it is made from the code, by nobody's hand
    Raises DeclarationError.
    """
    if kind not in KINDS:
        raise DeclarationError(f"--for {kind}: there is no such bundle to begin with; fix: one of {', '.join(KINDS)}")
    files = {SCHEMA: schema()} | ({} if schema_only else files_of(kind))
    there = [name for name in files if (folder / name).exists() and not schema_only]
    if there and not force:
        fix = "fix: another folder, --schema for the schema alone, or --force"
        raise DeclarationError(f"{folder} holds {', '.join(sorted(there))} already; nothing was written; {fix}")
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
    except OSError as error:
        raise DeclarationError(f"{folder} cannot be written: {error}") from error
    return [folder / name for name in sorted(files)]


def schema() -> bytes:
    """The JSON Schema of milepost.yaml."""
    return orjson.dumps(editor_schema(), option=orjson.OPT_INDENT_2) + b"\n"


def files_of(kind: str) -> dict[str, bytes]:
    """The files of a starter, by name; the page generated from it is not among them: it would be another's tomorrow."""

    def below(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
        for one in folder.iterdir():
            if one.is_dir():
                yield from below(one, f"{prefix}{one.name}/")
            elif one.name != PAGE:
                yield f"{prefix}{one.name}", one.read_bytes()

    return dict(below(importlib.resources.files("milepost.ops").joinpath(KINDS[kind]), ""))
