"""A snapshot made ready for requests: everything that does not depend on the request is computed here, once."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import accumulate
from urllib.parse import quote

import msgspec

from control_plane.adapters.metrics import Tally, Timings
from control_plane.contracts import snapshot
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.targeting import DIGEST_SIZE, HOLD_OUT, Group, layer_salt
from control_plane.router.auth import Keys
from control_plane.router.breaker import Breaker
from control_plane.router.calls import request_head
from control_plane.router.foreign import ForeignPool
from control_plane.router.limits import Bucket, Limits
from control_plane.router.load import Load
from control_plane.router.metrics import Meter
from control_plane.router.pins import Pin
from control_plane.router.rest import Rest
from control_plane.router.upstream import Pool

_HEADER_SAFE = "!#$&'()*+-./:;<=>?@[]^_`{|}~ "  # printable ASCII but `,` and `%` stays as it is


class Server:
    """One deployment as this worker knows it: connections, health and load outlive snapshots."""

    __slots__ = ("breaker", "pool", "shadowing")

    def __init__(self, target: snapshot.Target, rest: Rest | None) -> None:
        self.pool = ForeignPool(target, rest) if target.protocol == "oip" else Pool(target.address, rest=rest)
        self.breaker = Breaker()
        self.shadowing = 0  # shadow copies under way


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One way a request may go: a variant on a target, with the parts of request, record and answer it decides."""

    variant: str
    target: snapshot.Target
    server: Server
    head: bytes  # of the call, up to the value of content-length
    assigned: bytes  # members of the record, each with a leading comma
    served: bytes
    answer: bytes  # members of the answer
    counted: Tally  # predictions answered


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One model."""

    name: str
    source: snapshot.ModelRoute
    arms: tuple[Arm, ...]
    ends: tuple[int, ...]  # where each arm's bucket range ends
    default: Arm | None  # for requests without a unit; None: nothing is routed
    fallback: Arm | None  # stable
    pinned_to: Arm | None  # break glass: everything goes here
    by_version: Mapping[str, Arm]  # for requests that name a version
    asked: dict[str, float]  # Unix seconds: when a request last named which version; told to the control plane
    shadows: tuple[tuple[int, Arm], ...]  # (weight, arm)
    common: bytes  # members every record of the model has
    hash: "blake2b"  # keyed with the salt; copied per unit
    named: Callable[[bytes], Arm | None] | None  # the arm of a unit that no bucket decides on; None: they all do
    unit_of: Callable[[bytes | msgspec.Raw], str | None] | None  # reads the unit from the features
    deadline_s: float
    load: Load
    limit: Bucket | None
    limited: Callable[[str], None]  # counts a request refused by a limit, "key" or "model"
    timings: Timings

    def every_arm(self) -> Iterator[Arm]:
        yield from self.arms
        yield from self.by_version.values()
        yield from (arm for _, arm in self.shadows)
        if self.pinned_to is not None:
            yield self.pinned_to

    def arm_of(self, unit: bytes) -> Arm:
        """The arm of an assignment unit: the same bucket as `assignment.bucket`, without hashing the key again."""
        if self.named is not None and (arm := self.named(unit)) is not None:
            return arm
        keyed = self.hash.copy()
        keyed.update(unit)
        position = int.from_bytes(keyed.digest(), "big") % BUCKETS
        return self.arms[bisect_right(self.ends, position)]


@dataclass(slots=True)
class Known:
    """What a worker carries from one snapshot to the next."""

    meter: Meter
    limits: Limits = field(default_factory=Limits)
    servers: dict[tuple[str, str], Server] = field(default_factory=dict[tuple[str, str], Server])  # by id and address
    loads: dict[str, Load] = field(default_factory=dict[str, Load])  # by model
    pinned: dict[str, snapshot.Target] = field(default_factory=dict[str, snapshot.Target])  # as last seen in a snapshot
    asked: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])  # by model, by version
    rest: Rest | None = None  # of the worker

    def server(self, target: snapshot.Target) -> Server:
        key = _identity(target)
        if key not in self.servers:
            self.servers[key] = Server(target, self.rest)
        return self.servers[key]

    def keep_only(self, used: Iterable[snapshot.Target]) -> None:
        """Close connections to servers that nothing routes to any more."""
        wanted = {_identity(target) for target in used}
        for key in [key for key in self.servers if key not in wanted]:
            self.servers.pop(key).pool.close()


def _identity(target: snapshot.Target) -> tuple[str, str]:
    """What a server of an earlier snapshot has to share to be the same: id and address, and what is translated."""
    translated = f"#{blake2b(target.schema, digest_size=8).hexdigest()}" if target.protocol == "oip" else ""
    return target.id, target.address + translated


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """One snapshot with the pins in force."""

    epoch: int
    revision: int
    models: Mapping[str, Route]
    keys: Keys


def build(source: snapshot.Snapshot, pins: Mapping[str, Pin], known: Known) -> Routes:
    """Make `source` ready.

    Raises:
        ValueError: it cannot be used, for example for a salt that is too long to key the hash.
    """
    for pin in pins.values():
        route = source.models.get(pin.model)
        if route is not None and pin.target in route.targets:
            known.pinned[pin.target] = route.targets[pin.target]
    models = {name: _route(name, route, source, pins.get(name), known) for name, route in source.models.items()}
    limits = {g.key_id: known.limits.bucket(f"key:{g.key_id}", g.rate_limit_rps) for g in source.keys.values()}
    keys = Keys(source.keys, {key_id: bucket for key_id, bucket in limits.items() if bucket is not None})
    known.limits.keep_only({f"key:{key_id}" for key_id in limits} | {f"model:{name}" for name in models})
    routes = Routes(source.epoch, source.revision, models, keys)
    known.keep_only(arm.target for route in models.values() for arm in route.every_arm())
    return routes


def _route(name: str, source: snapshot.ModelRoute, whole: snapshot.Snapshot, pin: Pin | None, known: Known) -> Route:
    meter = known.meter
    meter.seen(name)

    def arm(variant: str, target: snapshot.Target) -> Arm:
        others = {feature for other in source.targets.values() for feature in other.features} - set(target.features)
        siblings = ",".join(quote(feature, safe=_HEADER_SAFE) for feature in sorted(others))
        return Arm(
            variant=variant,
            target=target,
            server=known.server(target),
            head=request_head("POST", "/predict", headers={"x-mlcp-siblings": siblings} if siblings else None),
            assigned=_members(assigned_variant=variant, assigned_version=target.version),
            served=_members(served_variant=variant, served_version=target.version),
            answer=_members(model=name, model_version=target.version, variant=variant),
            counted=meter.predictions(name, "ok", variant, target.version),
        )

    arms = tuple(arm(a.variant, source.targets[a.target]) for a in source.arms)
    weights = [a.weight for a in source.arms]
    stable = next((a for a in arms if a.variant == "stable"), None)
    heaviest = max(zip(weights, arms, strict=True), key=lambda pair: pair[0], default=(0, None))[1]
    weighty = stable is not None and weights[arms.index(stable)] > 0
    pinned_target = _pinned_target(source, pin, known)
    return Route(
        name=name,
        source=source,
        arms=arms,
        ends=tuple(accumulate(weights)),
        default=stable if weighty else heaviest,
        fallback=stable,
        pinned_to=arm("pinned", pinned_target) if pinned_target else None,
        by_version={target.version: arm("pinned", target) for target in source.targets.values()},
        asked=known.asked.setdefault(name, {}),
        shadows=tuple((s.weight, arm("shadow", source.targets[s.target])) for s in source.shadows),
        common=_members(model=name, epoch=whole.epoch, revision=whole.revision)
        + (_members(rollout_id=source.rollout_id) if source.rollout_id else b"")
        + (_members(step=source.step) if source.step is not None else b""),
        hash=blake2b(key=source.salt.encode(), digest_size=8),
        named=_by_name(source.targeting, arm, source.targets, stable) if source.targeting is not None else None,
        unit_of=_unit_reader(source.unit) if source.unit is not None else None,
        deadline_s=source.deadline_ms / 1000,
        load=known.loads.setdefault(name, Load(source.max_in_flight)),
        limit=known.limits.bucket(f"model:{name}", source.rate_limit_rps),
        limited=partial(meter.rate_limited, name),
        timings=meter.latency(name),
    )


def _pinned_target(source: snapshot.ModelRoute, pin: Pin | None, known: Known) -> snapshot.Target | None:
    """A pin holds even where a later snapshot does not name its target any more."""
    if pin is None:
        return None
    return source.targets.get(pin.target) or known.pinned.get(pin.target)


def _by_name(
    targeting: snapshot.Targeting,
    arm: Callable[[str, snapshot.Target], Arm],
    targets: Mapping[str, snapshot.Target],
    stable: Arm | None,
) -> Callable[[bytes], Arm | None] | None:
    """`targeting.group` with its keys hashed once. Without stable there is nobody else to serve them."""
    if stable is None:
        return None
    held_out, excluded, elsewhere = (arm(g, stable.target) for g in (Group.HELD_OUT, Group.EXCLUDED, Group.ELSEWHERE))
    first = targets[targeting.candidate] if targeting.candidate is not None else stable.target
    allowed = arm(Group.ALLOWED, first)
    by_digest = dict.fromkeys(map(bytes.fromhex, targeting.allow), allowed)
    by_digest |= dict.fromkeys(map(bytes.fromhex, targeting.exclude), excluded)
    in_hold_out = blake2b(key=HOLD_OUT.encode(), digest_size=8)
    in_list = blake2b(key=targeting.key.encode(), digest_size=DIGEST_SIZE)
    in_layer = blake2b(key=layer_salt(targeting.layer or "").encode(), digest_size=8)

    def digest(keyed: "blake2b", unit: bytes) -> bytes:
        copied = keyed.copy()
        copied.update(unit)
        return copied.digest()

    def named(unit: bytes) -> Arm | None:
        if targeting.hold_out and int.from_bytes(digest(in_hold_out, unit), "big") % BUCKETS < targeting.hold_out:
            return held_out
        if by_digest and (found := by_digest.get(digest(in_list, unit))) is not None:
            return found
        if targeting.layer is not None:
            position = int.from_bytes(digest(in_layer, unit), "big") % BUCKETS
            return None if targeting.first <= position < targeting.last else elsewhere
        return None

    return named


def _unit_reader(name: str) -> Callable[[bytes | msgspec.Raw], str | None]:
    """Reads the feature that names the assignment unit. What is neither text nor a number names nobody."""
    shape = msgspec.defstruct("UnitFeature", [("unit", str | int | float | None, None)], rename={"unit": name})
    decode = msgspec.json.Decoder(shape).decode

    def read(features: bytes | msgspec.Raw) -> str | None:
        try:
            value: object = msgspec.structs.astuple(decode(features))[0]
        except msgspec.ValidationError:
            return None  # the model server will say what is wrong with it
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 7 and 7.0 are one customer
        return None if value is None else str(value)

    return read


def _members(**values: object) -> bytes:
    """`,"a":1,"b":"x"`: members to be spliced into a JSON object."""
    return b"," + msgspec.json.encode(values)[1:-1]
