"""Lenient: a bundle that lies in the log, as far as it holds in this release.

    files -> the checks of plan and apply pass -> its catalog, whole
             they do not -> each part with a fault is taken out -> the catalog of what holds, and what was left out

The log is history: a bundle that an older release applied and this one's checks refuse must not stop the line at its
marker, nor take away what still holds.  New bundles are checked whole (`catalog.load_bundle`).

What goes with a fault is the definition that has it, whole, and what is made of it: nobody's guess stands for what was
meant.  An event loses nothing by it: its rules and writes that do not hold are dead letters (event, rule) with the
reason, types without a contract are `unknown_type`, sources that do not hold `unknown_source`; a metric that is left
out takes nothing from the facts.  Of a source its owner and expectations go alone, and so does a type of events; its
keys and personal data are nothing that it could be read without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from milepost.schemas.errors import BundleError, Finding
from milepost.topology.bundle import MAIN, SHAPE, BundleText
from milepost.topology.catalog import bundle_id, compiled, load_bundle
from milepost.topology.catalog_records import refusing_write
from milepost.topology.catalog_rules import SCHEMA_FILE, refusing
from milepost.topology.definitions import Catalog, Rule, Write
from milepost.topology.document import Document, Findings, Path
from milepost.topology.faults import parsed, placed

ROUNDS_MAX: Final = 8
"""Where a fault shows only once another is out, what is left is looked at so often; what is still wrong then, or
cannot be taken out, leaves nothing."""
ALONE: Final = frozenset({"owner", "expect"})
"""Keys of a source without which it is read as it was."""


def lenient_bundle(files: Mapping[str, bytes]) -> Catalog:
    """The catalog of a bundle of the log; `left_out` says what of it does not hold.  Equal files give the same object
    while it is remembered."""
    try:
        return load_bundle(files)
    except BundleError as error:
        return _what_holds(tuple(sorted((name, bytes(text)) for name, text in files.items())), error.findings)


def nothing_holds(catalog: Catalog) -> bool:
    """Whether nothing of a bundle can be read: it may be no bundle at all."""
    return bool(catalog.left_out) and not catalog.sources


@lru_cache(maxsize=16)
def _what_holds(pairs: tuple[tuple[str, bytes], ...], faults: tuple[Finding, ...]) -> Catalog:
    files = dict(pairs)
    known = {name: text for name, text in pairs if name == MAIN or SCHEMA_FILE.fullmatch(name)}
    left = _Left()
    try:
        document = parsed(MAIN, known.get(MAIN, b""))
    except BundleError as error:
        document = Document(MAIN, value={})
        left.found += error.findings
    findings = Findings(document)
    catalog = compiled(known, left.shape(document), findings, left.rules, left.writes)
    told = dict.fromkeys([*faults, *left.found, *findings.found])
    return replace(catalog, bundle_id=bundle_id(files), left_out=tuple(told))


class _Left:
    """What is taken out of a document until its shape holds.

    found: why;  rules, writes: refusals in the place of rules and writes of which the type of events can be read
    """

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.rules: list[Rule] = []
        self.writes: list[Write] = []

    def shape(self, document: Document) -> BundleText:
        """The models of what is left; the document loses the rest."""
        for path, finding in document.faults:
            self.found.append(finding)
            if len(path) > 1:  # a key at the top or of a section was passed over by the reader
                self._take_out(document.value, path, finding)
        for _ in range(ROUNDS_MAX):
            try:
                return BundleText.model_validate(document.value)
            except ValidationError as error:
                taken = [self._placed(document, path, one) for path, one in placed(error, document, SHAPE).items()]
            if not any(taken):
                break
        document.value = {}
        return BundleText()

    def _placed(self, document: Document, path: Path, finding: Finding) -> bool:
        self.found.append(finding)
        return self._take_out(document.value, path, finding)

    def _take_out(self, value: Any, path: Path, finding: Finding) -> bool:
        """Take the part of a path out; False when it is out already, or nothing that can be taken out."""
        *above, last = _part(path) or ("",)
        for step in above:
            value = value.get(step) if isinstance(value, dict) else None
        if not isinstance(value, dict) or last not in value:
            return False
        gone = value.pop(last)
        if above == ["signals"]:
            self.rules += [refusing(str(last), on, finding.message) for on in _types(gone)]
        if above == ["records"]:
            self.writes += [refusing_write(str(last), on, finding.message) for on in _types(gone)]
        return True


def _part(path: Path) -> Path:
    """The part of a document that goes with a fault at `path`."""
    match path:
        case ("sources", _, key, *_) if key in ALONE:
            return path[:3]
        case ("sources", _, "types", _, *_):
            return path[:4]
        case ("identity", "blocked", _, *_):
            return path[:3]
    return path[:2]


def _types(gone: Any) -> list[str]:
    """The types of events that a rule or record was on, as far as they can be read."""
    told = [one.get("on") for one in (gone if isinstance(gone, list) else [gone]) if isinstance(one, dict)]
    return [one for one in dict.fromkeys(told) if isinstance(one, str)]
