"""The reference is complete: what the code has and the docs lack fails here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.contracts.problems import BASE, Problem
from control_plane.errors import ControlPlaneError
from control_plane.telemetry import Metric
from tests.support import reference


def tree(error: type[ControlPlaneError]) -> Iterator[type[ControlPlaneError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == "control_plane.errors":
            yield from tree(child)


ERRORS = sorted(set(tree(ControlPlaneError)), key=lambda error: error.type)


@pytest.mark.parametrize("name", reference.GENERATED)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    page = (reference.PAGES / name).read_text()
    assert page == reference.GENERATED[name](), "run: python -m tests.support.reference"


def test_every_setting_has_a_meaning() -> None:
    rows = [line.split(" | ") for line in reference.settings_page().splitlines() if line.startswith("| `MLCP")]
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


def test_every_error_slug_has_its_heading_status_and_remedy() -> None:
    page = (reference.PAGES / "errors.md").read_text()
    sections = {part.split("\n", 1)[0].strip(): part for part in page.split("\n## ")[1:]}
    assert sections.keys() == {error.type for error in ERRORS}
    for error in ERRORS:
        assert f"**{error.status}** · {error.title}" in sections[error.type], error.type


def test_no_two_errors_share_a_slug() -> None:
    slugs = [error.type for error in ERRORS]
    assert len(slugs) == len(set(slugs))
    assert Problem(type=BASE + "not-found", title="t", status=404, detail="d").slug == "not-found"


def test_the_error_tree_at_the_top_of_errors_py_names_every_class() -> None:
    import control_plane.errors

    drawn = Path(control_plane.errors.__file__).read_text().split('"""')[1]
    assert [error.__name__ for error in ERRORS if error.__name__ not in drawn] == []


def test_every_problem_response_of_the_openapi_document_has_the_problem_schema() -> None:
    for path, methods in reference.openapi()["paths"].items():
        for method, operation in methods.items():
            wrong = [
                status
                for status, response in operation["responses"].items()
                if status >= "400" and "application/problem+json" not in response.get("content", {})
            ]
            assert wrong == [], f"{method} {path}"


def test_every_metric_has_its_line_in_the_docs() -> None:
    page = (reference.PAGES.parent / "howto" / "watch.md").read_text()
    names = [value for name, value in vars(Metric).items() if name.isupper()]
    assert len(names) > 15
    assert [name for name in names if f"`{name}`" not in page] == []
