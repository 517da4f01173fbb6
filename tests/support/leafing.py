"""Leafing through a page of documentation as a person does: by headings, labels, table rows, and links."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Said:
    """What stands in a place: its text, and where its links lead."""

    text: str = ""
    links: list[str] = field(default_factory=list)


@dataclass
class Part:
    """What stands under a heading: sentences, labelled facts, table rows (by their anchors, too)."""

    heading: str
    anchor: str
    about: Said = field(default_factory=Said)
    facts: dict[str, Said] = field(default_factory=dict)
    rows: list[dict[str, Said]] = field(default_factory=list)

    def row(self, first: str) -> dict[str, Said]:
        """The table row that begins with a text."""
        return next(one for one in self.rows if next(iter(one.values())).text == first)


class Leafing(HTMLParser):
    """The parts of a page, by heading and by anchor; anchors of rows lead to the part that they are in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[Part] = [Part("", "")]
        self.by_anchor: dict[str, Part] = {}
        self._columns: list[str] = []
        self._head = False
        self._into: list[Said] = []
        self._label = Said()
        self.feed(page)

    def __getitem__(self, heading: str) -> Part:
        """The part with this heading."""
        return next(one for one in self.parts if one.heading == heading)

    def follow(self, link: str) -> Part:
        """Where a link of the page leads."""
        assert link.startswith("#"), link
        return self.by_anchor[link[1:]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        part = self.parts[-1]
        if tag in ("h1", "h2", "h3"):
            self.parts.append(Part("", given.get("id", "")))
            self._into = [Said()]
        elif tag == "dt":
            self._into = [Said()]
        elif tag == "dd":
            part.facts[self._label.text] = Said()
            self._into = [part.facts[self._label.text]]
        elif tag == "thead":
            self._columns, self._head = [], True
        elif tag == "tr" and not self._head:
            part.rows.append({})
        elif tag in ("th", "td"):
            self._into = [Said()]
        elif tag in ("p", "li"):
            self._into = [part.about]
        elif tag == "a" and "href" in given:
            for one in self._into:
                one.links.append(given["href"])
        if "id" in given:
            self.by_anchor[given["id"]] = self.parts[-1]

    def handle_endtag(self, tag: str) -> None:
        part = self.parts[-1]
        if tag in ("h1", "h2", "h3"):
            part.heading = self._into[0].text.strip()
        elif tag == "dt":
            self._label = self._into[0]
        elif tag == "thead":
            self._head = False
        elif tag in ("th", "td") and self._head:
            self._columns.append(self._into[0].text)
        elif tag in ("th", "td"):
            part.rows[-1][self._columns[len(part.rows[-1])]] = self._into[0]
        if tag in ("h1", "h2", "h3", "dt", "dd", "th", "td", "p", "li"):
            self._into = []

    def handle_data(self, data: str) -> None:
        for one in self._into:
            one.text += data
