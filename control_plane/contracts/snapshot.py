"""The routing snapshot: everything a router needs to answer, one immutable JSON document.

A router keeps the highest (epoch, revision) it has seen and the last good document when a newer one is bad. Adding an
optional field keeps `SCHEMA`; anything else raises it, and routers refuse a schema they do not know.
"""

from hashlib import sha256
from typing import Literal

import msgspec

from control_plane.domain.assignment import BUCKETS

SCHEMA = 1
Variant = Literal["stable", "candidate", "baseline"]


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ready deployment of one version. `address`: `unix:/path` or `http://host:port`."""

    id: str  # the deployment's UUID
    version: str
    digest: str
    address: str
    aux_address: str | None = None  # batch, explain; None: the same process
    protocol: Literal["native", "oip"] = "native"
    remote_name: str | None = None  # oip: the model's name on that server
    features: tuple[str, ...] = ()
    # What /ml/{model}/example, docs and openapi.json are made of; null: nothing. A union with None holds no object.
    schema: msgspec.Raw = msgspec.Raw(b"null")


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """Arms take consecutive bucket ranges in the order given; their weights sum to 10,000."""

    variant: Variant
    weight: int  # buckets out of 10,000
    target: str  # key of `ModelRoute.targets`


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """Copies of a share of requests; never touches the answer."""

    target: str
    weight: int  # buckets out of 10,000 of all requests


class Targeting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is not divided by buckets: see `domain.targeting`. Units are digests in hex, keyed with `key`."""

    hold_out: int = 0  # buckets of the slice that never gets a candidate
    key: str = ""
    exclude: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    candidate: str | None = None  # the target of those allowed; None: it is not ready, they are served by stable
    layer: str | None = None
    first: int = 0  # of the layer's buckets, [first, last)
    last: int = BUCKETS


class ModelRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    targets: dict[str, Target]
    arms: tuple[Arm, ...]
    salt: str  # the rollout's id, else the model's own; at most 64 bytes
    rollout_id: str | None = None
    step: int | None = None
    shadows: tuple[Shadow, ...] = ()
    targeting: Targeting | None = None
    aliases: dict[str, str] = {}  # "production", "staging" -> version; pinned requests resolve here
    sleeping: tuple[str, ...] = ()  # versions in Staging whose servers were stopped; to ask for one starts them
    previous: str | None = None  # the target `mlcp router pin --previous` goes to while it is warm
    unit: str | None = None  # the feature that names the assignment unit when the body has no unit_id
    deadline_ms: int = 500
    max_body_bytes: int = 1_048_576
    max_in_flight: int = 512  # of this model in one router worker; more are shed
    rate_limit_rps: float | None = None  # of all keys and routers together
    problem: str = "opaque"


class KeyGrant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one key may do on the data plane; the dict's key is the hex SHA-256 of the bearer token."""

    key_id: str
    models: tuple[str, ...]  # fnmatch patterns
    pin: bool = False  # scope predict:pin
    expires_at: float | None = None  # Unix seconds
    rate_limit_rps: float | None = None  # of all models and routers together


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int
    epoch: int  # raised by a database restore or a new leader's takeover of publication
    revision: int
    created_at: str  # RFC 3339, UTC
    models: dict[str, ModelRoute]
    keys: dict[str, KeyGrant]
    checksum: str = ""


_SEAL = b',"checksum":"'  # the last member; the sum covers every byte before it, fields of later releases included


def encode(snapshot: Snapshot) -> bytes:
    """The document, sealed: its last member is the SHA-256 of all bytes before that member."""
    blank = msgspec.json.encode(msgspec.structs.replace(snapshot, checksum=""), order="deterministic")
    body = blank.rpartition(_SEAL)[0]
    return body + _SEAL + sha256(body).hexdigest().encode() + b'"}'


def decode(document: bytes) -> Snapshot:
    """Parse and verify.

    Raises:
        ValueError: not JSON, not of this schema, checksum wrong, an arm or shadow without its target, or arms of a
            model that do not cover the traffic.
    """
    body, _, seal = document.rpartition(_SEAL)
    if sha256(body).hexdigest().encode() + b'"}' != seal:
        raise ValueError("checksum does not match")
    try:
        snapshot = msgspec.json.decode(document, type=Snapshot)
    except msgspec.MsgspecError as exc:
        raise ValueError(f"not a snapshot: {exc}") from exc
    if snapshot.schema_version != SCHEMA:
        raise ValueError(f"schema {snapshot.schema_version} is not {SCHEMA}")
    for name, route in snapshot.models.items():
        named = {arm.target for arm in route.arms} | {s.target for s in route.shadows}
        if route.targeting is not None and route.targeting.candidate is not None:
            named.add(route.targeting.candidate)
        if missing := named - route.targets.keys():
            raise ValueError(f"{name}: no such target {sorted(missing)}")
        weights = [arm.weight for arm in route.arms]
        if weights and (sum(weights) != BUCKETS or min(weights) < 0):
            raise ValueError(f"{name}: weights {weights} do not sum to {BUCKETS}")
    return snapshot
