"""A server that answers what a test declares, and `mlcp` run against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.answering import Answering, answering
from tests.support.cli import Run, runner


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as state:
        yield state


@pytest.fixture
def mlcp(server: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(server, tmp_path, monkeypatch)
