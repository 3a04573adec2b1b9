import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "math"
TOPICS = sorted(page for page in PAGES.glob("*.md") if page.name != "index.md")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", TOPICS, ids=lambda page: page.stem)
def test_the_worked_example_of_a_page_is_what_the_code_does(page: Path) -> None:
    blocks = BLOCK.findall(page.read_text())
    assert blocks, f"{page.name} has no example"
    names: dict[str, object] = {}
    for block in blocks:
        assert "assert" in block
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", TOPICS, ids=lambda page: page.stem)
def test_a_page_has_formula_source_and_a_line_in_the_index(page: Path) -> None:
    text = page.read_text()
    assert re.search(r"^Sources?: ", text, re.MULTILINE)
    assert re.search(r"\$.+\$", text, re.DOTALL)
    assert f"({page.name})" in (PAGES / "index.md").read_text()
