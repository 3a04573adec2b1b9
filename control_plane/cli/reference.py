"""`python -m control_plane.cli.reference`: writes docs/reference/cli.md from the commands themselves."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from control_plane.cli import build

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
_HEAD = """# The command line

Written by `python -m control_plane.cli.reference`; change the commands, not this page.

`mlcp` finds the control plane by, in this order, `MLCP_API_URL` and `MLCP_ROUTER_URL`, `api_url` and `router_url` in
`$MLCP_HOME/mlcp.toml`, and `http://127.0.0.1:8000` and `:8080`. Its keys are `MLCP_API_KEY` and, for `predict`,
`outcomes`, `explain` and `simulate`, `MLCP_PREDICT_KEY`; else the files `admin.key` and `predictor.key` in
`$MLCP_HOME/keys`. `MLCP_HOME` is `var` where it is not set. To act as somebody else:

    MLCP_API_KEY="$(cat var/keys/approver.key)" mlcp promote churn --reason "seen and agreed"

Results go to stdout, as JSON with `--json`; everything else goes to stderr.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | unexpected, or what was looked for is wrong (`doctor`, `audit verify`, `simulate`) |
| 2 | the command was written wrongly |
| 3 | not found |
| 4 | refused, or in conflict with what is: gates not met, a rollout open, nothing to roll back to |
| 5 | no valid key, or the key does not allow it |
| 6 | something needed does not answer, or is not installed |
| 7 | input cannot be used |
| 8 | not done in time |
"""


def page() -> str:
    """The whole page, at 80 columns."""
    return _HEAD + "".join(f"\n## mlcp {name}\n\n```text\n{text}\n```\n" for name, text in _helps())


def _helps() -> Iterator[tuple[str, str]]:
    """(words of the command, its --help), groups before what is in them."""
    app = build()
    commands: dict[str, Any] = getattr(get_command(app), "commands")  # noqa: B009  (typer's group is not typed)
    for name, command in sorted(commands.items()):
        yield name, _help(app, name)
        for inner in sorted(getattr(command, "commands", ())):
            yield f"{name} {inner}", _help(app, name, inner)


def _help(app: Any, *words: str) -> str:
    said = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*words, "--help"], prog_name="mlcp").stdout
    return "\n".join(line.rstrip() for line in said.strip().splitlines())


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
