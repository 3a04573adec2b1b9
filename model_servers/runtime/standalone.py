"""Serve one model without a deployer: what a generated server.py and its container run."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from model_servers.runtime import spec
from model_servers.runtime.__main__ import UNUSABLE, serve
from model_servers.runtime.spec import BadSpec, Config, Spec


def main(model_yaml: Path, argv: Sequence[str] | None = None) -> int:
    """Exit codes as `python -m model_servers.runtime`. Every option can be set in the environment instead."""
    env = os.environ.get
    parser = argparse.ArgumentParser(description=f"Serve the model declared in {model_yaml.name}.")
    parser.add_argument("--artifact", default=env("MODEL_ARTIFACT"), help="folder of the artifact (MODEL_ARTIFACT)")
    parser.add_argument("--version", default=env("MODEL_VERSION"), help="registered version (MODEL_VERSION)")
    parser.add_argument("--digest", default=env("MODEL_DIGEST"), help="sha256:<hex> as registered (MODEL_DIGEST)")
    parser.add_argument("--listen", default=env("MODEL_LISTEN", "127.0.0.1:8080"), help="host:port, or a socket's path")
    parser.add_argument("--aux-listen", default=env("MODEL_AUX_LISTEN"), help="the same for batch and explain")
    parser.add_argument("--workers", type=int, default=int(env("MODEL_WORKERS", "2")))
    parser.add_argument("--metrics-dir", default=env("MODEL_METRICS_DIR"), help="Prometheus multiprocess files")
    given = parser.parse_args(argv)
    if missing := [name for name in ("artifact", "version", "digest") if not getattr(given, name)]:
        sys.stderr.write(f"missing: {', '.join('--' + name for name in missing)}\n")
        return UNUSABLE
    try:
        config = msgspec.convert(yaml.safe_load(model_yaml.read_text(encoding="utf-8")), Config)
        wanted = Spec(
            model=config.name,
            version=given.version,
            digest=given.digest,
            artifact=given.artifact,
            runtime="native",
            socket=given.listen,
            aux_socket=given.aux_listen,
            config=config,
            workers=given.workers,
            metrics_dir=given.metrics_dir,
        )
        spec.check(wanted)
    except (OSError, yaml.YAMLError, msgspec.ValidationError, BadSpec) as exc:
        sys.stderr.write(f"cannot be served: {exc}\n")
        return UNUSABLE
    return serve(wanted)
