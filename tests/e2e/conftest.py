"""One real stack for all end-to-end tests; they use different models so that none depends on another's state."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    # A short folder: the path of a unix socket has room for about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="mlcp-e2e-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "var")
        try:
            stack.up()
            yield stack
        finally:
            stack.mlcp("down", check=False, timeout=120)
