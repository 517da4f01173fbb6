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
    if folder.exists() and not folder.is_dir():
        raise DeclarationError(f"{folder} is not a folder; fix: another name")
    there = [name for name in files if (folder / name).exists() and not schema_only]
    if there and not force:
        fix = "fix: another folder, --schema for the schema alone, or --force"
        raise DeclarationError(f"{folder} holds {', '.join(sorted(there))} already; nothing was written; {fix}")
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
    except OSError as error:
        raise DeclarationError(f"{folder} cannot be written: {error.strerror}; fix: another folder") from error
    return [folder / name for name in sorted(files)]


def following(folder: Path, kind: str) -> str:
    """What to do next, for people."""
    sends = "milepost connect git PATH" if kind == "git" else "milepost send events.ndjson"
    steps = (
        (f"milepost test {folder}", "its rules, tested as data"),
        ("milepost up", "in a second terminal"),
        (f"milepost apply {folder} --org NAME", "in force for your organisation"),
        (sends, "and `milepost query` says what can be asked"),
    )
    width = max(len(typed) for typed, _ in steps)
    return "\n".join(["next:", *(f"  {typed:{width}}  # {why}" for typed, why in steps)])


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
