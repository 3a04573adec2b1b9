"""What the pages say about the command line and the SDK is so."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from control_plane.cli import build, reference
from control_plane.errors import InvalidConfig
from control_plane.sdk import ControlPlane, PredictionClient
from tests.support.readme import Block, blocks, run
from training.common import models

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OURS = ("control_plane", "model_servers", "training")  # what others' libraries have is theirs to test


def every_block() -> list[Block]:
    return [block for page in PAGES for block in blocks(page, without=frozenset())]


def test_the_reference_of_the_command_line_is_current() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run python -m control_plane.cli.reference"


def test_every_command_says_what_it_does() -> None:
    for words, command in _commands():
        assert command.help, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("block", [b for b in every_block() if b.language == "python"], ids=lambda block: block.name)
def test_programs_of_the_pages_import_what_there_is(block: Block) -> None:
    tree = ast.parse(block.text)
    imports: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OURS)
    ]
    exec(compile(ast.Module(imports, []), block.name, "exec"), {})


@pytest.mark.parametrize("block", [b for b in every_block() if b.language != "python"], ids=lambda block: block.name)
def test_commands_of_the_pages_are_written_as_the_command_line_takes_them(block: Block) -> None:
    for line in block.text.splitlines():
        if line.startswith("mlcp "):
            _parse(shlex.split(line)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_named_in_a_sentence_exist(page: Path) -> None:
    commands = dict(_commands())
    for said in re.findall(r"`mlcp ([^`\n]+)`", page.read_text()):
        words = said.split()
        command = commands.get(" ".join(words[:2])) or commands.get(words[0])
        assert command or words[0].startswith("-"), said
        known = {name for option in getattr(command, "params", ()) for name in option.opts}
        assert {word for word in words if re.fullmatch("--[a-z-]+", word)} <= known | {"--help"}, said


def test_advice_to_train_instead_of_simulating_names_an_option_there_is() -> None:
    source = models.find("churn", models.folders({}))
    with pytest.raises(InvalidConfig, match="give rows with --data FILE"):
        replace(source, simulate_file=None).simulate()
    options = {name for option in dict(_commands())["train"].params for name in option.opts}
    assert "--data" in options


def test_the_reference_of_the_sdk_names_every_call() -> None:
    page = (ROOT / "docs/reference/sdk.md").read_text()
    for client in (ControlPlane, PredictionClient):
        for name in vars(client):
            if not name.startswith("_"):
                assert re.search(rf"\b{name}\b", page), name


class TestBlocks:
    def test_tags_languages_and_prompts_are_told_apart(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(
            "# T\n\n```bash setup\nmake up\n```\n\n```console\n$ echo a\na\n$ echo b\n```\n"
            "```python\nprint('c')\n```\n```text\nnot run\n```\n"
        )
        found = blocks(page)
        assert [(block.language, block.line, block.text) for block in found] == [
            ("console", 8, "echo a\necho b"),
            ("python", 13, "print('c')"),
        ]
        assert blocks(page, without=frozenset())[0].text == "make up"

    def test_blocks_share_one_shell_and_a_failure_names_its_block(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("```bash\nWHO=world\n```\n```bash\necho hello $WHO\n```\n```python\nprint('of', 'old')\n```\n")
        said = run(blocks(page), cwd=tmp_path, env={}, replaced={"old": "new"})
        assert [line for line in said.splitlines() if not line.startswith("---")] == ["hello world", "of new"]
        page.write_text("```bash\necho fine\n```\n```bash\nfalse\n```\n")
        with pytest.raises(AssertionError, match=r"page\.md:5"):
            run(blocks(page), cwd=tmp_path, env={}, replaced={})


def _commands() -> Iterator[tuple[str, Any]]:
    for name, command in get_command(build()).commands.items():  # type: ignore[attr-defined]
        yield name, command
        for inner, its in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", its


def _parse(words: list[str]) -> None:
    """Read a command line without carrying it out; a wrong one raises typer's usage error."""
    command: Any = get_command(build())
    context = None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, words, parent=context)
        _, command, words = command.resolve_command(context, words)
    command.make_context(command.name, words, parent=context)
