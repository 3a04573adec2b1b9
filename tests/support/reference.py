"""Generated reference pages: `python -m tests.support.reference` writes them, a test holds them to the code."""

import ast
import inspect
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from control_plane import settings
from control_plane.api.app import create_app
from control_plane.settings import ApiSettings

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference"
_PROCESSES = {
    "ApiSettings": "api",
    "InitSettings": "init",
    "GateSettings": "mlflow-gate",
    "ReconcilerSettings": "reconciler",
    "WorkerSettings": "worker",
    "RouterSettings": "router",
    "ShipperSettings": "shipper",
    "IngesterSettings": "ingester",
    "ArchiverSettings": "archiver",
    "ReporterSettings": "reporter",
    "ReplayerSettings": "replayer",
}


def openapi() -> dict[str, Any]:
    app = create_app(ApiSettings(postgres_dsn=SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")))
    return app.openapi()


def api_page() -> str:
    """Every documented route: what it does, and the errors it may answer with."""
    lines = [
        "# Admin API",
        "",
        "Generated from the code; the same as OpenAPI at `/docs` of a running API. All paths are under `/api/v1`;",
        "those of models, experiments and health are at the root too. Send `Authorization: Bearer <key>`. Errors are",
        "problem documents: see [errors](errors.md). A list answers `{items, next}`; `next` goes into `cursor=`.",
        "",
        "| route | what it does | errors |",
        "|---|---|---|",
    ]
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            said = operation.get("description") or operation["summary"]
            text = " ".join(said.split("\n\n")[0].split()).replace("|", "\\|")
            statuses = sorted(status for status in operation["responses"] if status >= "400")
            lines.append(f"| `{method.upper()} {path.removeprefix('/api/v1')}` | {text} | {' '.join(statuses)} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Every environment variable of every process, its default and its meaning."""
    comments = _comments()
    rows: dict[tuple[str, str], tuple[str, str, list[str]]] = {}
    for name, process in _PROCESSES.items():
        for field, info in getattr(settings, name).model_fields.items():
            variable, also = f"MLCP_{field.upper()}", _classic(info)
            shown = f"`{variable}`" + "".join(f", `{alias}`" for alias in also)
            key = (shown, _default(info))
            rows.setdefault(key, (comments.get(field, ""), field, []))[2].append(process)
    lines = [
        "# Settings",
        "",
        "Generated from `control_plane/settings.py`. An argument wins over the environment, the environment over files",
        "in `MLCP_SECRETS_DIR` (named like the variable, in lower case), these over `$MLCP_HOME/mlcp.toml` (keys",
        "without the prefix, in lower case), that over the default.",
        "",
        "| variable | default | read by | meaning |",
        "|---|---|---|---|",
    ]
    for (shown, default), (comment, _, processes) in sorted(rows.items()):
        readers = "all" if len(processes) == len(_PROCESSES) else ", ".join(processes)
        lines.append(f"| {shown} | {default} | {readers} | {comment} |")
    return "\n".join(lines) + "\n"


def _classic(info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    return (
        [str(c) for c in alias.choices if str(c).isupper() and not str(c).startswith("MLCP_")]
        if isinstance(alias, AliasChoices)
        else []
    )


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.annotation is SecretStr or SecretStr in get_args(info.annotation):
        return "none"
    return f"`{info.default}`"


def _comments() -> dict[str, str]:
    """field -> the comment on its line, or on the lines of its statement."""
    source = inspect.getsource(settings)
    lines = source.splitlines()
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            for line in lines[node.lineno - 1 : node.end_lineno]:
                _, mark, comment = line.partition("  # ")
                if mark and not comment.startswith("type:"):
                    found[node.target.id] = comment.strip().replace("|", "\\|")
    return found


GENERATED = {"api.md": api_page, "settings.md": settings_page}


def main() -> int:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, page in GENERATED.items():
        (PAGES / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
