"""The spec file: everything one model server is told. Written by a deployer, read by launch and runtime.

`config` is model.yaml as JSON. Only the part a server needs is typed here; the rest belongs to the control plane and is
ignored, so that either side may gain fields first.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

FeatureKind = Literal["number", "integer", "boolean", "category", "text"]
Problem = Literal["binary", "multiclass", "regression", "opaque"]

_SOCKET_BYTES = 100  # the kernel holds 108; the margin is for a suffix


class BadSpec(ValueError):
    """The spec cannot be served; the text names the member and says why."""


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One member of `features` in the predict body. `range` is inclusive, in the feature's own unit."""

    type: FeatureKind
    nullable: bool = False
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] | None = None
    pii: bool = False
    description: str = ""
    example: float | bool | str | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    threshold: float | None = None  # overrides the artifact's own
    positive: str = "yes"
    negative: str = "no"


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    explain: Literal["none", "top", "full"] = "none"  # top: reasons in words inside the answer
    batch: bool = True


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The sections of model.yaml that serving reads."""

    name: str
    problem: Problem
    features: dict[str, Feature]
    owner: str = ""
    purpose: str = ""
    decision: Decision = msgspec.field(default_factory=Decision)
    serving: Serving = msgspec.field(default_factory=Serving)


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """`socket` and `aux_socket`: paths of unix sockets, or host:port to listen on TCP (containers, measurements)."""

    model: str
    version: str
    digest: str  # "sha256:<hex>" of the artifact tree
    artifact: str
    runtime: Literal["native", "pyfunc"]
    socket: str
    config: Config
    aux_socket: str | None = None
    workers: int = 2
    threads: int = 1  # of numeric libraries, per worker
    metrics_dir: str | None = None
    cache_dir: str | None = None  # where environments of foreign models are built and kept
    requirements: tuple[str, ...] | None = None
    inferred: bool = False
    max_body_bytes: int = 1_048_576
    batch_max_body_bytes: int = 67_108_864  # JSON rows are held in memory; streamed formats are not
    grace_s: float = 10.0  # SIGTERM to exit; requests still unanswered by then are cut


def load(path: Path) -> Spec:
    """Raises BadSpec: unreadable, not JSON, a member missing or of the wrong type, a path no socket can have."""
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=Spec)
    except OSError as exc:
        raise BadSpec(f"{path}: {exc.strerror}") from exc
    except msgspec.MsgspecError as exc:
        raise BadSpec(f"{path}: {exc}") from exc
    check(spec)
    return spec


def check(spec: Spec) -> None:
    """Raises BadSpec for what types cannot say."""
    if not 1 <= spec.workers <= 64:
        raise BadSpec(f"workers: {spec.workers} is not within 1..64")
    if not 1 <= spec.threads <= 64:
        raise BadSpec(f"threads: {spec.threads} is not within 1..64")
    if not os.path.isdir(spec.artifact):
        raise BadSpec(f"artifact: {spec.artifact} is not a folder")
    if odd := [name for name in spec.config.features if not decodable(name)]:
        raise BadSpec(f"config.features: no quote, backslash or control character in a name, as in {odd[0]!r}")
    for name, address in (("socket", spec.socket), ("aux_socket", spec.aux_socket)):
        if address and "/" in address and len(os.fsencode(address)) > _SOCKET_BYTES:
            raise BadSpec(f"{name}: {address} is longer than {_SOCKET_BYTES} bytes, the limit of a unix socket's path")


def decodable(name: str) -> bool:
    """Whether the fast decoder can have a member of this name."""
    return not any(character in '"\\' or character < " " for character in name)
