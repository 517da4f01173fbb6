"""The runbook: what it says to type is there, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from milepost.ops import cli
from milepost.ops.settings import VARIABLES
from milepost.topology import line

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "ops/RUNBOOK.md").read_text()
CODE = "\n".join(
    [*re.findall(r"`([^`\n]+)`", PAGE), *re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
)


def test_commands_of_the_runbook_exist() -> None:
    """Each `milepost COMMAND` and each of its options is there, and a topic that is named is the line's."""
    group = typer.main.get_command(cli.app)
    assert isinstance(group, typer.core.TyperGroup)
    found = re.findall(r"\bmilepost ([a-z][a-z-]*)([^|&;\n]*)", CODE)
    assert {"doctor", "tail", "apply", "complete", "backup", "restore"} <= {name for name, _ in found}
    for name, rest in found:
        command, words = group.commands[name], rest.split()
        if isinstance(command, typer.core.TyperGroup):
            assert words and words[0] in command.commands, f"{name}{rest}"
            command = command.commands[words[0]]
        known = {one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)}
        assert {one for one in words if one.startswith("--")} <= known, f"{name}{rest}"
        if name == "tail":
            assert rest.split()[0] in {topic.name for topic in line.all_topics()}, rest


def test_links_and_settings_of_the_runbook_exist() -> None:
    """Links within the page lead to headings, files that are named are there, settings are settings."""
    headings = {one.lower().replace(" ", "-") for one in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchor in headings, anchor
    for name in re.findall(r"`(ops/[\w./-]+)`", PAGE):
        assert (ROOT / name).exists(), name
    assert set(re.findall(r"\bMILEPOST_[A-Z_]+[A-Z]", PAGE)) <= VARIABLES.keys()


def test_a_section_that_an_alert_sends_to_is_there() -> None:
    """What an alert's section refers to by name (`No room`) is a heading: a reader finds it."""
    headings = set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE))
    for named in re.findall(r"\*([A-Z][a-z]+(?: [a-z]+)+)\*", PAGE):
        assert named in headings or named in ("Checkpoint, time",), named
