"""Typst, in this one module: a report's JSON document to PDF, pictures as vectors. Needs no system fonts."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib import resources

import typst

from control_plane.errors import ControlPlaneError


def pdf(document: str) -> bytes:
    """The PDF (A4, tagged) of a report's JSON. ControlPlaneError: the document does not fit the template."""
    with _refused():
        return typst.compile(_template(), format="pdf", sys_inputs={"report": document}, ignore_system_fonts=True)


def pages(document: str, *, ppi: float = 100.0) -> list[bytes]:
    """Its pages as PNG, to look at."""
    with _refused():
        found: bytes | list[bytes] = typst.compile(
            _template(), format="png", sys_inputs={"report": document}, ignore_system_fonts=True, ppi=ppi
        )
    return found if isinstance(found, list) else [found]


@cache
def _template() -> bytes:
    return resources.files("control_plane.adapters").joinpath("report.typ").read_bytes()


@contextmanager
def _refused() -> Generator[None]:
    try:
        yield
    except typst.TypstError as exc:
        raise ControlPlaneError(f"The report cannot be set: {exc.message}") from exc
