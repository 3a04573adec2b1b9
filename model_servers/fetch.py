"""`python -m model_servers.fetch --into DIR`: a version's artifact from MLflow, verified, before its server starts.

What to fetch is in the environment: MLFLOW_TRACKING_URI, MODEL_NAME, MODEL_VERSION, MODEL_DIGEST, MODEL_RUNTIME (native
or pyfunc); MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD, where MLflow asks for them. They are not
known to the server, which may run foreign code. Standard library only.

Exit codes: 0 it is there, 2 usage, 3 it is not the artifact that was registered, 5 MLflow does not give it.
"""

import argparse
import base64
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

from model_servers.native import digest
from model_servers.runtime import logs

DIFFERENT, UNAVAILABLE = 3, 5
_NATIVE: Final = "artifacts/native"  # the part of an artifact of our own pipeline that is served
_PROXY: Final = "/api/2.0/mlflow-artifacts/artifacts"
_ATTEMPTS: Final = 6
_PIECE: Final = 1 << 20
_MAX_DEPTH: Final = 16
_log = logging.getLogger(__name__)


class CannotFetch(Exception):
    """MLflow does not have it, or does not answer; the text says what it said."""


class Mlflow:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._url = environ["MLFLOW_TRACKING_URI"].rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise CannotFetch(f"MLFLOW_TRACKING_URI: {self._url} is no http(s) address")
        self._headers = {"User-Agent": "mlcp"}
        if token := environ.get("MLFLOW_TRACKING_TOKEN"):
            self._headers["Authorization"] = f"Bearer {token}"
        elif user := environ.get("MLFLOW_TRACKING_USERNAME"):
            pair = f"{user}:{environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def root(self, model: str, version: str) -> str:
        """Where the version's artifact lies behind MLflow's artifact proxy."""
        answer = self._json("/api/2.0/mlflow/model-versions/get-download-uri", {"name": model, "version": version})
        uri = str(answer["artifact_uri"])
        if uri.startswith("models:/m-"):
            found = self._json(f"/api/2.0/mlflow/logged-models/{uri.removeprefix('models:/')}")
            uri = str(found["model"]["info"]["artifact_uri"])
        elif uri.startswith("runs:/"):
            run, _, path = uri.removeprefix("runs:/").partition("/")
            found = self._json("/api/2.0/mlflow/runs/get", {"run_id": run})
            uri = f"{found['run']['info']['artifact_uri']}/{path}"
        parts = urlsplit(uri)
        path = parts.path.partition(_PROXY)[2] or parts.path
        if parts.scheme not in {"mlflow-artifacts", "http", "https"} or ".." in PurePosixPath(path).parts:
            raise CannotFetch(f"the artifact lies at {uri}, which MLflow's artifact proxy does not serve")
        return path.strip("/")

    def files(self, root: str, below: str = "", depth: int = 0) -> Iterator[str]:
        if depth > _MAX_DEPTH:
            raise CannotFetch(f"the artifact has more than {_MAX_DEPTH} levels of folders")
        listing = self._json(_PROXY, {"path": f"{root}/{below}".rstrip("/")})
        for item in cast("list[dict[str, Any]]", listing.get("files") or ()):
            name = PurePosixPath(str(item["path"])).name
            if name in {"", ".."}:
                raise CannotFetch(f"the artifact names a file {item['path']!r}")
            if item.get("is_dir"):
                yield from self.files(root, f"{below}{name}/", depth + 1)
            else:
                yield f"{below}{name}"

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in _attempts():
            with attempt, target.open("wb") as file, self._open(f"{_PROXY}/{quote(path)}") as answer:
                while piece := answer.read(_PIECE):
                    file.write(piece)
                return

    def _json(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        for attempt in _attempts():
            with attempt, self._open(f"{path}?{urlencode(query)}" if query else path) as answer:
                return cast("dict[str, Any]", json.load(answer))
        raise AssertionError  # the last attempt raises

    def _open(self, path: str) -> Any:
        return urlopen(Request(self._url + path, headers=self._headers), timeout=30)  # noqa: S310  (http(s), see above)


class _Attempt:
    def __init__(self, last: bool) -> None:
        self._last = last

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, _: object) -> bool:
        match exc:
            case HTTPError() if exc.code < 500 and exc.code not in {408, 429}:
                raise CannotFetch(f"MLflow answered {exc.code}: {exc.read()[:300].decode(errors='replace')}") from exc
            case URLError() | OSError() | ValueError() if not self._last:
                _log.warning("MLflow does not answer yet: %s", exc)
                return True
            case URLError() | OSError() | ValueError():
                raise CannotFetch(f"MLflow does not answer: {exc}") from exc
            case _:
                return False


def _attempts() -> Iterator[_Attempt]:
    for number in range(_ATTEMPTS):
        if number:
            time.sleep(min(0.25 * 2**number, 5))
        yield _Attempt(number == _ATTEMPTS - 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_servers.fetch", description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="an empty folder")
    into: Path = parser.parse_args(argv).into
    logs.configure("model-fetch")
    env = os.environ
    if missing := [
        name for name in ("MLFLOW_TRACKING_URI", "MODEL_NAME", "MODEL_VERSION", "MODEL_DIGEST") if not env.get(name)
    ]:
        _log.error("not set: %s", ", ".join(missing))
        return 2
    try:
        fetch(env, into)
    except CannotFetch as exc:
        _log.error("%s %s cannot be fetched: %s", env["MODEL_NAME"], env["MODEL_VERSION"], exc)
        return UNAVAILABLE
    found = digest.of_folder(into)
    if found != env["MODEL_DIGEST"]:
        _log.error("refused: the artifact is not the one registered: digest %s, not %s", found, env["MODEL_DIGEST"])
        return DIFFERENT
    return 0


def fetch(environ: Mapping[str, str], into: Path) -> None:
    """Raises CannotFetch. What a cut-off attempt left is written over."""
    mlflow = Mlflow(environ)
    root = mlflow.root(environ["MODEL_NAME"], environ["MODEL_VERSION"])
    if environ.get("MODEL_RUNTIME", "native") == "native":
        root = f"{root}/{_NATIVE}"
    files = list(mlflow.files(root))
    if not files:
        raise CannotFetch(f"there are no files at {root}")
    for name in files:
        mlflow.download(f"{root}/{name}", into / name)


if __name__ == "__main__":
    sys.exit(main())
