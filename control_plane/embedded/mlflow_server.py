"""`python -m control_plane.embedded.mlflow_server`: the MLflow tracking server in one process.

The `mlflow server` command keeps a parent that has imported everything too and then imports it again in a child.
Doing its two steps here (bring the schema up to date, run the ASGI application) halves memory and start time.
"""

import argparse
import os
from pathlib import Path

_JOBS_OFF = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"


class _Nobody:
    """What MLflow looks for in a store of artifacts that clients may be sent to."""


def main() -> None:
    parser = argparse.ArgumentParser()
    backend = parser.add_mutually_exclusive_group(required=True)
    backend.add_argument("--backend", help="SQLAlchemy URL of the database")
    backend.add_argument("--backend-file", type=Path, help="a file that holds it, so that no password is in a command")
    parser.add_argument("--artifacts", required=True, help="folder, or s3://bucket/prefix, artifacts are served from")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; whoever reaches it may do everything"
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log-level", default="warning")
    options = parser.parse_args()
    store = options.backend or options.backend_file.read_text().strip()

    # Read by MLflow at import, so before it.
    os.environ[_JOBS_OFF] = "false"
    os.environ.setdefault("MLFLOW_SERVER_ALLOWED_HOSTS", "127.0.0.1,127.0.0.1:*,localhost,localhost:*")
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = store
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = store
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = options.artifacts
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"

    from mlflow.server import handlers

    # Otherwise clients are sent to the bucket with signed addresses, as soon as it is one. They do not reach it, on no
    # network of ours, and would try for minutes. MLflow has no setting for it.
    for kind in ("MultipartDownloadMixin", "MultipartUploadMixin"):
        setattr(handlers, kind, _Nobody)
    handlers.initialize_backend_stores(store, store, "mlflow-artifacts:/")

    import uvicorn

    uvicorn.run(
        "mlflow.server.fastapi_app:app",
        host=options.host,
        port=options.port,
        log_level=options.log_level,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
