"""`python -m model_servers.runtime --spec FILE`: verify, load, fork, serve.

Exit codes: 0 drained, 2 usage, 3 the artifact is not what was registered, 4 spec, artifact or socket cannot be used,
6 workers cannot start.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model_servers.runtime import logs, metrics, spec
from model_servers.runtime.spec import BadSpec, Spec

if TYPE_CHECKING:
    from model_servers.runtime.engine import Engine

DIGEST_MISMATCH, UNUSABLE = 3, 4
_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_servers.runtime", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="spec file of one deployment (JSON)")
    arguments = parser.parse_args(argv)
    try:
        wanted = spec.load(arguments.spec)
    except BadSpec as exc:
        logs.configure("model-server")
        _log.error("the spec cannot be served: %s", exc)
        return UNUSABLE
    return serve(wanted)


def serve(wanted: Spec) -> int:
    """Run one model server until it is told to stop; returns the exit code."""
    logs.configure("model-server", model=wanted.model, version=wanted.version)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(wanted.threads)  # read when the libraries are loaded, which is below
    metrics.use_folder(wanted.metrics_dir)

    from model_servers.native import BadArtifact, digest
    from model_servers.runtime.parent import Parent

    try:
        found = digest.of_folder(Path(wanted.artifact))
        if found != wanted.digest:
            _log.error("refused: the artifact is not the one registered: digest %s, not %s", found, wanted.digest)
            return DIGEST_MISMATCH
        parent = Parent(wanted, _engine(wanted))
    except (BadSpec, BadArtifact, ValueError, OSError) as exc:
        _log.error("refused: %s", exc)
        return UNUSABLE
    return parent.run()


def _engine(wanted: Spec) -> "Callable[[], Engine]":
    """What each worker calls after the fork. A native model is loaded here and shared; a foreign one may start
    threads when it is loaded, so each worker loads its own."""
    if wanted.runtime == "native":
        from model_servers.runtime.native_engine import NativeEngine

        shared = NativeEngine(Path(wanted.artifact), wanted.config, threads=wanted.threads)
        return lambda: shared
    from model_servers.runtime.pyfunc_engine import PyfuncEngine, preload

    preload(Path(wanted.artifact))
    return lambda: PyfuncEngine(Path(wanted.artifact), wanted.config)


if __name__ == "__main__":
    sys.exit(main())
