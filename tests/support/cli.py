"""Runs `mlcp` in this process as a user would, at 80 columns, against a server that answers what a test declares."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from control_plane.cli import build
from tests.support.answering import Answering

Run = Callable[..., Result]


def runner(server: Answering, home: Path, patch: pytest.MonkeyPatch) -> Run:
    """`run(*argv, stdin=None, exits=0)`: asserts the exit code, and that whatever is not JSON fits 80 columns."""
    settings = {"MLCP_HOME": str(home), "MLCP_API_KEY": "secret", "MLCP_PREDICT_KEY": "secret", "COLUMNS": "80"}
    for name, value in {**settings, "MLCP_API_URL": server.url, "MLCP_ROUTER_URL": server.url}.items():
        patch.setenv(name, value)
    application = build()

    def run(*argv: str, stdin: str | None = None, exits: int = 0) -> Result:
        result = CliRunner().invoke(application, list(argv), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exits, (result.exit_code, result.stdout, result.stderr)
        if "--json" not in argv:
            assert max(map(len, (result.stdout + result.stderr).splitlines()), default=0) <= 80
        return result

    return run
