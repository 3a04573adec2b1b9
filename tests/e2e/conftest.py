"""One real stack for all end-to-end tests; they use different models so that none depends on another's state."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import make_url

from tests.support.stack import Stack, environment_of, eventually


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack of its own; or, while one works on a test, the running one whose MLCP_HOME is in MLCP_TEST_STACK."""
    if given := os.environ.get("MLCP_TEST_STACK"):
        urls = json.loads((Path(given) / "run" / "status.json").read_text())["urls"]
        named = {"API": "api", "ROUTER": "predict", "MLFLOW": "mlflow"}
        yield Stack(Path(given), {name: urlsplit(urls[key]).port or 80 for name, key in named.items()})
        return
    # A short folder: the path of a unix socket has room for about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="mlcp-e2e-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "var")
        try:
            stack.up()
            yield stack
        finally:
            stack.mlcp("down", check=False, timeout=120)


@pytest.fixture(scope="session")
def dsn(stack: Stack) -> str:
    """As the ingester connects."""
    url = make_url(environment_of(stack.process("ingester")["pid"])["MLCP_POSTGRES_DSN"])
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def second_churn(stack: Stack) -> tuple[str, str]:
    """Production of churn, and a second version that passes its gates."""
    first = next(v["version"] for v in stack.json("versions", "churn") if v["stage"] == "Production")
    stack.mlcp("train", "churn", "--seed", "7")
    newer = eventually(
        lambda: [v["version"] for v in stack.json("versions", "churn") if int(v["version"]) > int(first)],
        "the second version",
    )
    return first, newer[0]
