"""Documents: YAML 1.2 as plain values, with the place of each, so that every finding has a line and a column.

Built on ruamel's tree of nodes instead of its objects, because YAML's surprises are settled here:
* a key that stands twice is a finding, and so is a key that is no text;
* `on`, `yes`, `no` are text (YAML 1.2), and so is a date without quotes;
* aliases are copied within bounds (100,000 values, 32 levels); tags of programming languages are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from milepost.schemas.errors import BundleError, Finding

Path = tuple[str | int, ...]

VALUES_MAX: Final = 100_000
DEPTH_MAX: Final = 32
_BRACKETS_MAX: Final = 256
_BRACKET: Final = re.compile(r"[\[\]{}]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HALF: Final = "the text holds half a letter (a surrogate without the other)"
_TAG: Final = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Document:
    """A file's values and where each begins.

    places: path -> (line, column), from 1, of the value; the line and column of a text's first letter
    keys:   path -> (line, column) of the key that leads to it
    """

    file: str
    value: Any = None
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    inline: set[Path] = field(default_factory=set)
    """Paths of texts that stand in one line as they are, so that an offset into them is an offset in the line."""
    faults: list[tuple[Path, Finding]] = field(default_factory=list)
    """What is wrong with its form, and where: there the value is None, or the first of two."""

    def finding(
        self, path: Path, message: str, *, guess: str = "", fix: str = "", offset: int = 0, key: bool = False
    ) -> Finding:
        """A finding at a value (or at its key); where the path leads nowhere, at what is nearest above."""
        at = path
        while at and at not in self.places:
            at = at[:-1]
        line, column = self.places.get(at, (1, 1))
        if key:
            line, column = self.keys.get(at, (line, column))
        elif at == path and path in self.inline:
            column += offset
        return Finding(file=self.file, line=line, column=column, message=message, guess=guess, fix=fix)


class Findings:
    """The faults found so far in one document, and in what lies beside it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.found: list[Finding] = []

    def add(
        self, path: Path, message: str, *, guess: str = "", fix: str = "", offset: int = 0, key: bool = False
    ) -> None:
        """A fault at a value, or at its key; `offset`: characters into the value."""
        self.found.append(self.document.finding(path, message, guess=guess, fix=fix, offset=offset, key=key))


def read(file: str, text: str) -> Document:
    """Read one YAML document.  Raises BundleError with a finding for each fault of its form."""
    document = parse(file, text)
    if document.faults:
        raise BundleError([finding for _, finding in document.faults])
    return document


def parse(file: str, text: str) -> Document:
    """The same with the faults beside it (`Document.faults`).  Raises BundleError where it cannot be read on."""
    document = Document(file)
    _check_brackets(file, text)
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        context = f" {error.context}" if error.context else ""
        raise BundleError(
            [
                Finding(
                    file=file,
                    line=line,
                    column=column,
                    message=f"not YAML: {error.problem}{context}",
                    fix=_fix(text, line, column),
                )
            ]
        ) from None
    except YAMLError as error:
        at = _first_unprintable(text)
        message = "not YAML: " + str(error).split("\n")[0]
        raise BundleError([Finding(file=file, line=at[0], column=at[1], message=message)]) from None
    except RecursionError:
        raise BundleError([_deep(file, 1, 1)]) from None
    if node is None:
        raise BundleError([Finding(file=file, line=1, column=1, message="the file is empty")])
    document.value = _Reader(document).read(node, (), 0)
    return document


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def read(self, node: Node, path: Path, depth: int) -> Any:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self.count += 1
        if self.count > VALUES_MAX:
            message = f"a bundle has at most {VALUES_MAX} values, copies of aliases counted"
            raise BundleError([Finding(file=self.document.file, line=line, column=column, message=message)])
        if depth > DEPTH_MAX:
            raise BundleError([_deep(self.document.file, line, column)])
        self.document.places[path] = (line, column)
        if not isinstance(node, ScalarNode) and str(node.tag) not in (_TAG + "map", _TAG + "seq"):
            message = f"the tag {str(node.tag).removeprefix(_TAG)!r} has no place in a bundle"
            self._add(path, line, column, message, "leave it out")
            return None
        match node:
            case MappingNode():
                return self._mapping(node, path, depth)
            case SequenceNode():
                return [self.read(one, (*path, i), depth + 1) for i, one in enumerate(node.value)]
            case ScalarNode():
                return self._scalar(node, path, line, column)
        raise AssertionError(f"a node of an unknown kind: {type(node).__name__}")

    def _mapping(self, node: MappingNode, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if not isinstance(key, ScalarNode) or str(key.tag) not in (_TAG + "str", _TAG + "timestamp"):
                said = f"{key.value!r}" if isinstance(key, ScalarNode) else "a list or mapping"
                fix = f'write "{key.value}" in quotes' if isinstance(key, ScalarNode) else ""
                self._add(path, line, column, f"a key is text, {said} came", fix)
                continue
            name = str(key.value)
            if not _whole(name):
                self._add(path, line, column, _HALF, "write the letter itself")
                continue
            if name in found:
                before = self.document.keys[*path, name]
                message = f"the key {name!r} stands twice, first in line {before[0]}"
                self._add((*path, name), line, column, message, "keep one of them")
                continue
            self.document.keys[*path, name] = (line, column)
            found[name] = self.read(value, (*path, name), depth + 1)
        return found

    def _scalar(self, node: ScalarNode, path: Path, line: int, column: int) -> Any:
        text = str(node.value)
        if not _whole(text):
            self._add(path, line, column, _HALF, "write the letter itself")
            return None
        if node.style in ("'", '"'):
            self.document.places[path] = (line, column + 1)
        if node.style != "|" and node.style != ">" and node.start_mark.line == node.end_mark.line:
            self.document.inline.add(path)
        match str(node.tag).removeprefix(_TAG):
            case "str" | "timestamp":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return self._number(path, text, line, column, int)
            case "float":
                return self._number(path, text, line, column, float)
            case other:
                self._add(path, line, column, f"the tag {other!r} has no place in a bundle", "leave it out")
                return None

    def _number(
        self, path: Path, text: str, line: int, column: int, kind: type[int] | type[float]
    ) -> int | float | None:
        plain = text.lstrip("+-")
        octal = kind is int and len(plain) > 1 and plain[0] == "0" and plain.isdigit()
        try:
            if octal or "_" in text or len(text) > 40:
                raise ValueError
            number = int(text, 0) if kind is int else float(text)
            if number - number != 0:
                raise ValueError
        except ValueError:
            message = f"{text[:40]!r} can be read in two ways as a number"
            self._add(path, line, column, message, "write digits, or text in quotes")
            return None
        return number

    def _add(self, path: Path, line: int, column: int, message: str, fix: str = "") -> None:
        found = Finding(file=self.document.file, line=line, column=column, message=message, fix=fix)
        self.document.faults.append((path, found))


def _whole(text: str) -> bool:
    """Whether a text has bytes: an escaped surrogate without its other half has none."""
    return text.isascii() or not _SURROGATE.search(text)


def _check_brackets(file: str, text: str) -> None:
    """A cheap bound before the scanner, whose time grows with the square of open brackets."""
    depth = 0
    for found in _BRACKET.finditer(text):
        depth += 1 if found[0] in "[{" else -1
        if depth > _BRACKETS_MAX:
            line = text.count("\n", 0, found.start()) + 1
            raise BundleError([_deep(file, line, found.start() - text.rfind("\n", 0, found.start()))])


def _deep(file: str, line: int, column: int) -> Finding:
    return Finding(file=file, line=line, column=column, message=f"nested deeper than {DEPTH_MAX} levels")


def _first_unprintable(text: str) -> tuple[int, int]:
    for number, line in enumerate(text.split("\n"), 1):
        for column, letter in enumerate(line, 1):
            if not (letter.isprintable() or letter in "\t\r"):
                return number, column
    return 1, 1


def _fix(text: str, line: int, column: int) -> str:
    lines = text.split("\n")
    here = lines[line - 1] if line <= len(lines) else ""
    if "\t" in here[:column]:
        return "indent with spaces, not with tabs"
    if here[column - 1 : column] in ("@", "`", "%", "&", "*", "!"):
        return "write the text in quotes"
    return ""


def said(value: object) -> str:
    """What a value is, for a message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f"{value[:60]!r}"
        case list():
            return "a list"
        case Mapping():
            return "a mapping"
    return type(value).__name__
