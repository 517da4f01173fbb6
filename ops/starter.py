"""Starter: a commented bundle to begin with, its tests, and the JSON Schema that editors check it by."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import orjson

from milepost.schemas.errors import DeclarationError
from milepost.topology.catalog import editor_schema

SCHEMA: Final = "milepost.schema.json"
"""The first line of the starter's milepost.yaml points to it."""


def write(folder: Path, *, force: bool = False, schema_only: bool = False) -> list[Path]:
    """Write the starter into a folder; answers the files.

    force:       over files that are there;  without it none is written when one is there
    schema_only: the schema alone, over the one that is there: it is made from the code, by nobody's hand
    Raises DeclarationError.
    """
    files = {SCHEMA: schema()} | ({} if schema_only else dict(_files()))
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


def _files() -> Iterator[tuple[str, bytes]]:
    def below(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
        for one in folder.iterdir():
            if one.is_dir():
                yield from below(one, f"{prefix}{one.name}/")
            else:
                yield f"{prefix}{one.name}", one.read_bytes()

    yield from below(importlib.resources.files("milepost.ops").joinpath("starter_bundle"), "")
