"""Commands: all there are, as the table of the CLI has them, and as few arguments as each takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import typer
from typer.testing import CliRunner, Result

from milepost.ops import cli

HARMLESS: Final = {
    "bench": ["--only", "nothing"],
    "demo": ["--exit", "--week", "--data", "absent"],
    "reset": ["--yes"],
    "doctor": ["--settings"],
}
"""What keeps a command from doing more than a test wants."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something by itself, with the words that name it."""
    if hasattr(command, "commands"):
        if command.invoke_without_command and path:
            yield path, command
        for name, one in command.commands.items():
            yield from leaves(one, (*path, name))
    else:
        yield path, command


TABLE: Final[dict[tuple[str, ...], Any]] = dict(leaves(typer.main.get_command(cli.app)))


def needed(path: tuple[str, ...]) -> list[str]:
    """As few arguments as a command takes."""
    given: list[str] = []
    for one in TABLE[path].params:
        if one.required and one.param_type_name == "argument":
            given.append("absent:x")
        elif one.required:
            given += [max(one.opts, key=len), "absent"]
    return given + HARMLESS.get(path[-1], [])


def run(*arguments: str, stdin: str | None = None) -> Result:
    """Type `milepost ARGUMENTS` in this process."""
    return CliRunner().invoke(cli.app, list(arguments), input=stdin)
