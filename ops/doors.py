"""The commands of the doors.

tokens create · list · revoke    who may come in, and what they may do
audit                            who changed what, when, and where it lies in the log

They speak to the broker, so tokens can be made before any worker runs, and revoked whether one answers or not.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any, Final

import typer

from milepost.ops.access import Book, Role, Token
from milepost.ops.options import Json
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError
from milepost.topology import bases

DAYS_MAX: Final = 3_650

app = typer.Typer()
tokens = typer.Typer(name="tokens", help="Who may come in: create, list, revoke.", no_args_is_help=True)
app.add_typer(tokens)

Days = Annotated[int, typer.Option(help="It opens nothing after so many days.", min=1, max=DAYS_MAX)]


@tokens.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it; shown in the audit.")],
    role: Annotated[
        list[Role] | None, typer.Option(help="read, write (events), operate (change things); also several times [read]")
    ] = None,
    org: Annotated[str | None, typer.Option(help="The only organisation that it reaches; left out: all.")] = None,
    days: Days = 90,
    json: Json = False,
) -> None:
    """Make a token.  It is shown this once; what is kept of it opens nothing."""
    from milepost.ops import access, access_log, cli

    with cli._said(json):
        settings = cli._reachable(cli._settings())
        book = access_log.read_book(settings)
        text, record = access.make(
            book.keys, name=name, roles=frozenset(role or [Role.READ]), org=org, days=days, now_ms=_now_ms(),
            by=access_log.myself(),
        )  # fmt: skip
        access_log.write(settings, book, record)
        told = {**_row(_made(book, record), book), "token": text}
        if not json:
            cli._progress(f"{_line(told)}\nkeep it now, it is not shown again:")
        cli._show(json, told, text)


@tokens.command("list")
def list_(json: Json = False) -> None:
    """Every token that was made, with what it may do and whether it holds."""
    from milepost.ops import access_log, cli

    with cli._said(json):
        book = access_log.read_book(cli._reachable(cli._settings()))
        rows = [_row(one, book) for one in sorted(book.tokens.values(), key=lambda one: one.made_ms)]
        cli._show(json, {"tokens": rows}, "\n".join(map(_line, rows)) or "no token was made; the doors stand open")


@tokens.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID|NAME", help="As `tokens list` says.")], json: Json = False
) -> None:
    """End a token, with every worker and on open streams, within a second."""
    from milepost.ops import access, access_log, cli

    with cli._said(json):
        settings: Settings = cli._reachable(cli._settings())
        book = access_log.read_book(settings)
        found = _found(book, token)
        record = access.revoke(book.keys, found, now_ms=_now_ms(), by=access_log.myself())
        access_log.write(settings, book, record)
        book.add_fields(record)
        told = _row(found, book)
        cli._show(json, told, _line(told))


@app.command()
def audit(
    limit: Annotated[int, typer.Option("-n", help="So many of the newest lines.", min=1, max=100_000)] = 100,
    json: Json = False,
) -> None:
    """Who changed what, when, and where it lies in the log; the oldest line first."""
    from milepost.ops import access_log, cli

    with cli._said(json):
        lines = access_log.audit(cli._reachable(cli._settings()), limit)
        told = [{**line, "at": bases.written(line.pop("at_ms"))} for line in lines]
        cli._show(json, {"changes": told}, "\n".join(map(_change, told)) or "nothing was changed")


def _found(book: Book, text: str) -> Token:
    """A token by its id, or by a name that only one which holds has."""
    if text in book.tokens:
        return book.tokens[text]
    named = [one for one in book.tokens.values() if one.name == text and one.id not in book.revoked]
    if len(named) != 1:
        said = f"{len(named)} tokens are called {text[:64]!r}" if named else f"no token is called {text[:64]!r}"
        raise DeclarationError(f"{said}; fix: one of the ids of `milepost tokens list`")
    return named[0]


def _made(book: Book, record: dict[str, Any]) -> Token:
    book.add_fields(record)
    return book.tokens[record["id"]]


def _row(one: Token, book: Book) -> dict[str, Any]:
    state = "valid" if book.holds(one.id, _now_ms()) else "revoked" if one.id in book.revoked else "expired"
    row = dataclasses.asdict(one)
    del row["verifier"]
    made, expires = row.pop("made_ms"), row.pop("expires_ms")
    return {
        **row, "roles": sorted(one.roles), "made": bases.written(made),
        "expires": None if expires is None else bases.written(expires), "state": state,
    }  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    """A line for people."""
    reach = row["org"] or "all organisations"
    return f"{row['id']}  {row['state']:7}  {'+'.join(row['roles']):18}  {reach}  until {row['expires']}  {row['name']}"


def _change(line: dict[str, Any]) -> str:
    """A line for people."""
    came = "asked" if line["status"] is None else str(line["status"])
    token = f" ({line['token']})" if line["token"] else ""
    return f"{line['at']}  {line['who'] or '–'}{token}  {line['call']}  {came}  {line['receipt'] or ''}".rstrip()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
