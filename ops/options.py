"""Options: what several commands take alike."""

from __future__ import annotations

from typing import Annotated

import typer

from milepost.ops import completing

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; progress stays on stderr.")]
Company = Annotated[str | None, typer.Option(help="A MetaKey (mk_…) or key:value; left out: all.")]
At = Annotated[str | None, typer.Option(help="A time with zone (RFC 3339).")]
Basis = Annotated[str | None, typer.Option(help="latest, corrected or as_shown.", autocompletion=completing.bases)]
Window = Annotated[str | None, typer.Option(help="all, 30d, 12h, 15m, year, month, week, day.")]
Zone = Annotated[str | None, typer.Option(help="A zone, as America/New_York.")]
Dims = Annotated[list[str] | None, typer.Option(help="name=value, also several times.")]
Org = Annotated[str | None, typer.Option(help="The organisation; may be left out when there is one.")]
By = Annotated[str | None, typer.Option(help="Who decides; it is shown with the decision.")]
