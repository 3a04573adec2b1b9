"""How commands speak: tables or JSON on stdout, everything else on stderr, one exit code per kind of error.

0 done · 1 unexpected · 2 usage · 3 not found · 4 refused or in conflict · 5 no valid key, or not allowed ·
6 something needed does not answer · 7 input cannot be used · 8 no answer in time

rich and pydantic are imported when there is something to print, so that `mlcp --help` stays quick.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from control_plane import errors

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OfModel = Annotated[str | None, typer.Argument(help="Of this model only.")]
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit.", metavar="TEXT")]
Workers = Annotated[int | None, typer.Option("--workers", help="By so many Dask processes of this host.", min=0)]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="By the workers of this Dask scheduler.", metavar="ADDRESS")
]
Limit = Annotated[int, typer.Option("--limit", help="Newest so many.", min=1, max=200)]

_EXIT_CODES: tuple[tuple[type[errors.ControlPlaneError], int], ...] = (
    (errors.NotFound, 3),
    (errors.Conflict, 4),
    (errors.PreconditionRequired, 4),
    (errors.Unauthenticated, 5),
    (errors.Forbidden, 5),
    (errors.Unavailable, 6),
    (errors.Overloaded, 6),
    (errors.InvalidInput, 7),
    (errors.TooLarge, 7),
    (errors.DeadlineExceeded, 8),
)


def exit_code(error: errors.ControlPlaneError) -> int:
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


class Commands(TyperGroup):
    """The group every command is in: an error of the tree is rendered and becomes its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except errors.ControlPlaneError as error:
            complain(error)
            raise typer.Exit(exit_code(error)) from error


def complain(error: errors.ControlPlaneError) -> None:
    """Title, detail and every reason, on stderr."""
    from rich.text import Text

    console = stderr()
    findings: list[dict[str, Any]] = error.extra.get("findings") or []
    detail = "" if findings else error.detail  # the detail of refused data repeats them
    console.print(Text.assemble((f"{error.title}. ", "bold red"), detail))
    for reason in error.extra.get("reasons") or ():
        if reason != error.detail:
            console.print(Text(f"  - {reason}"))
    for finding in findings:
        examples = ", ".join(map(str, finding.get("examples") or ()))
        rows = f" ({finding['rows']} rows)" if finding.get("rows") else ""
        said = f"  - {finding.get('column') or 'the data'}: {finding.get('message')}{rows}"
        console.print(Text(f"{said}: {examples}" if examples else said))
    if report := error.extra.get("report"):
        console.print(Text(f"  report {report}"))
    if trace := error.extra.get("trace_id"):
        console.print(Text(f"  trace {trace}", "dim"))


def stdout() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(line: str) -> None:
    """One line of plain text on stdout."""
    from rich.text import Text

    stdout().print(Text(line))


def show(value: object, as_json: bool, *rendered: "RenderableType") -> None:
    """`value` as JSON, or what was rendered of it."""
    if as_json:
        sys.stdout.write(to_json(value) + "\n")
    else:
        stdout().print(*rendered, sep="\n")


def to_json(value: object) -> str:
    """Indented JSON of pydantic models, lists of them, or plain values."""
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> "RenderableType":
    """A plain table that wraps instead of cutting. `#` before a column's name sets it to the right, `=` keeps it on
    one line: mark what must not break, and leave one column that may."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        name, right = column.lstrip("#="), column.startswith("#")
        made.add_column(
            name, justify="right" if right else "left", no_wrap=right or column.startswith("="), overflow="fold"
        )
    lines = [[Text(_cell(cell)) for cell in row] for row in rows]
    for line in lines:
        made.add_row(*line)
    return made if lines else Text("Nothing yet.", "dim")


def ago(at: datetime | None, *, now: datetime | None = None) -> str:
    """Age in the largest unit that fits: 42 s, 7 min, 3 h, 12 d."""
    if at is None:
        return "-"
    seconds = max(0.0, ((now or datetime.now(UTC)) - at) / timedelta(seconds=1))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(at: datetime | None) -> str:
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return moment(value)
    return str(value)
