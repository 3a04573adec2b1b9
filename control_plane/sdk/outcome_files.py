"""Outcomes out of a file: a JSON list, one JSON object a line, or CSV with a header.

Every row is checked before the first is sent: what is wrong is named by line and column, and then nothing is taken.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast
from uuid import NAMESPACE_URL, uuid5

from control_plane.contracts import outcome_rules
from control_plane.errors import ControlPlaneError, InvalidInput
from control_plane.sdk.predictions import Taken

_ROWS_AT_ONCE = 500
_MOST_REASONS = 100
_PLACE = re.compile(r"^outcomes\[(\d+)\]")


class Reporter(Protocol):
    """What is needed of a `PredictionClient`."""

    def outcomes(self, model: str, reports: Sequence[Mapping[str, object]]) -> Taken: ...


def report_file(client: Reporter, model: str, path: str | Path) -> Taken:
    """Report every outcome of a file; members and columns are those of `outcome`.

    A row with an `observed_at` has an id made of its content: a file sent again is stored once.

    Raises:
        InvalidInput: `extra["reasons"]` name line, column and what is expected there; nothing was taken.
        ControlPlaneError: the router became unreachable, or refused; `extra["accepted"]` rows were taken before.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"{path} cannot be read: {exc}") from exc
    return report_text(client, model, text)


def report_text(client: Reporter, model: str, text: str) -> Taken:
    """The same, of what a file holds."""
    text = text.removeprefix("\ufeff")
    _check(model, text)
    rows, accepted = read(text), 0
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        try:
            accepted += client.outcomes(model, [_identified(model, report) for _, report in part]).accepted
        except ControlPlaneError as exc:
            extra: dict[str, Any] = {**exc.extra, "accepted": accepted}
            if "reasons" in extra:
                extra["reasons"] = [_by_line(str(reason), part) for reason in extra["reasons"]]
            again = f" {accepted} rows were taken before; sent again they are stored once if they have observed_at."
            raise type(exc)(exc.detail + (again if accepted else ""), **extra) from exc
    return Taken(accepted=accepted)


def _check(model: str, text: str) -> None:
    reasons, rows = list[str](), 0
    for line, report in read(text):
        rows += 1
        reasons += [_placed(line, reason) for reason in outcome_rules.reasons(report, model)]
        if len(reasons) > _MOST_REASONS:
            raise _refused([*reasons[:_MOST_REASONS], f"and more after line {line}"])
    if reasons:
        raise _refused(reasons)
    if not rows:
        raise InvalidInput("There are no outcomes in it.")


def _refused(reasons: list[str]) -> InvalidInput:
    return InvalidInput("The outcomes cannot be read; none was taken.", reasons=reasons, accepted=0)


def read(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, outcome). Raises InvalidInput naming the line that is none."""
    stripped = text.lstrip()
    if stripped.startswith("["):
        try:
            found = json.loads(stripped)
        except (ValueError, RecursionError) as exc:
            raise InvalidInput(f"The outcomes cannot be read: {exc}") from exc
        yield from enumerate(cast("list[Any]", found), start=1)  # by place: a list says nothing of lines
    elif stripped.startswith("{"):
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as exc:
                    raise _refused([f"line {number}: {exc}"]) from exc
    else:
        yield from _csv(text)


def _csv(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if wrong := _header(rows.fieldnames or ()):
            raise _refused([f"line 1{reason}" for reason in wrong])
        for row in rows:
            cells = cast("dict[str | None, Any]", row)
            if None in cells:
                columns = len(rows.fieldnames or ())
                raise _refused([f"line {rows.line_num}: more cells than the header's {columns} columns; quote commas"])
            yield rows.line_num, {name: _value(name, cell) for name, cell in row.items() if cell not in (None, "")}
    except csv.Error as exc:
        raise _refused([f"line {rows.line_num}: {exc}"]) from exc


def _header(columns: Sequence[str]) -> list[str]:
    """What is wrong with it."""
    if len(columns) == 1 and re.search("[;\t]", columns[0]):
        return [": expected commas between the columns"]
    known = ", ".join(outcome_rules.MEMBERS)
    wrong = [f", column {name}: unknown; expected {known}" for name in columns if name not in outcome_rules.MEMBERS]
    wrong += [f", column {name}: twice" for name in sorted({name for name in columns if columns.count(name) > 1})]
    return wrong + ([] if "value" in columns else [", column value: missing"])


def _value(name: str, cell: str) -> object:
    """A CSV cell as the value it spells: true, false, a number, else text. Ids stay text."""
    if name != "value":
        return cell
    if cell.lower() in {"true", "false"}:
        return cell.lower() == "true"
    try:
        return float(cell)
    except ValueError:
        return cell


def _identified(model: str, report: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(cast(object, report), dict) or "outcome_id" in report or "observed_at" not in report:
        return report
    content = json.dumps(report, sort_keys=True, default=str)
    return {"outcome_id": str(uuid5(NAMESPACE_URL, f"mlcp:outcome:{model}:{content}")), **report}


def _by_line(reason: str, part: Sequence[tuple[int, object]]) -> str:
    found = _PLACE.match(reason)
    if found is None or int(found[1]) >= len(part):
        return reason
    return _placed(part[int(found[1])][0], reason[found.end() :])


def _placed(line: int, reason: str) -> str:
    """ ".value: missing" of line 7 as "line 7, column value: missing"."""
    return f"line {line}, column {reason[1:]}" if reason.startswith(".") else f"line {line}{reason}"
