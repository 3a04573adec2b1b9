"""Where the SDK and the CLI find the control plane: argument > environment > `$MLCP_HOME/mlcp.toml` > default.

Keys come from an argument, the environment, or the folder `$MLCP_HOME/keys` the embedded stack writes at first start.
"""

import os
import tomllib
from pathlib import Path

from control_plane.errors import InvalidInput, Unauthenticated

API_URL = "http://127.0.0.1:8000"
ROUTER_URL = "http://127.0.0.1:8080"


def home(given: str | Path | None = None) -> Path:
    """The folder of the embedded stack's state, absolute; it need not exist."""
    return Path(given or os.environ.get("MLCP_HOME") or "var").expanduser().absolute()


def api_url(given: str | None = None, *, folder: Path) -> str:
    return _url("api_url", given, folder, API_URL)


def router_url(given: str | None = None, *, folder: Path) -> str:
    return _url("router_url", given, folder, ROUTER_URL)


def mlflow_url(*, folder: Path) -> str | None:
    """The registry local training logs to; None where nothing but the default is known."""
    found = (
        os.environ.get("MLCP_MLFLOW_URL") or os.environ.get("MLFLOW_TRACKING_URI") or _file(folder).get("mlflow_url")
    )
    return None if found is None else str(found)


def key(given: str | None, *, variable: str, folder: Path, name: str) -> str:
    """The bearer key: `given`, else the environment's `variable`, else the file `keys/<name>.key` in `folder`.

    Raises:
        Unauthenticated: none of the three has one; the text says where a key was looked for.
    """
    if found := given or os.environ.get(variable):
        return found.strip()
    file = folder / "keys" / f"{name}.key"
    try:
        return file.read_text().strip()
    except FileNotFoundError as exc:
        raise Unauthenticated(f"No key: {variable} is not set and there is no {file}.") from exc
    except OSError as exc:
        raise Unauthenticated(f"The key in {file} cannot be read: {exc.strerror}.") from exc


def _url(name: str, given: str | None, folder: Path, default: str) -> str:
    found = given or os.environ.get(f"MLCP_{name.upper()}") or _file(folder).get(name) or default
    if not isinstance(found, str) or not found.startswith(("http://", "https://")):
        raise InvalidInput(f"{name} must be an http or https URL, got {found!r}.")
    return found.rstrip("/")


def _file(folder: Path) -> dict[str, object]:
    file = folder / "mlcp.toml"
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as exc:
        raise InvalidInput(f"{file} cannot be used: {exc}") from exc
