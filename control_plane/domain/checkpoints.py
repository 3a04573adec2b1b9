"""Signed checkpoints of the audit chain: which hash every link had, said under a key no database holds. Pure.

A checkpoint names the hashes of the links since the one before it and the digest of that one. So the newest
authentic one vouches for all before it, and a changed chain is not only noticed: its first bad link is known.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from control_plane.domain.audit import Link

EVERY = timedelta(seconds=60)  # a link waits no longer for its signature
LINKS = 100  # so many are signed at once, however young
LARGEST = 1_000  # links of one checkpoint; a burst becomes several
_VERSION = 1
_HASH = 32  # bytes
Verify = Callable[[bytes, bytes, bytes], bool]  # public key, signature, message


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as it is stored and exported: the bytes that were signed, and the signature."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a body says. `hashes` are those of the links after+1 ... seq."""

    after: int
    seq: int
    hashes: bytes  # 32 each
    at: datetime
    installation: str
    key: str  # id of the public key
    previous: str | None  # hex digest of the body before


def due(head_seq: int, signed_seq: int, oldest_at: datetime | None, *, now: datetime) -> bool:
    """Whether to sign now. `oldest_at`: when the first unsigned link was written; None: there is none."""
    unsigned = head_seq - signed_seq
    return unsigned >= LINKS or (unsigned > 0 and oldest_at is not None and now - oldest_at >= EVERY)


def compose(
    links: Sequence[Link], *, previous: Signed | None, installation: str, key: str, at: datetime
) -> tuple[Checkpoint, bytes]:
    """The checkpoint over `links` (in order, at least one, verified) and the bytes of it to sign."""
    made = Checkpoint(
        after=links[0].seq - 1,
        seq=links[-1].seq,
        hashes=b"".join(link.hash for link in links),
        at=at.astimezone(UTC),
        installation=installation,
        key=key,
        previous=None if previous is None else digest(previous.body),
    )
    facts = {
        "after": made.after,
        "at": made.at.isoformat(),
        "hashes": made.hashes.hex(),
        "installation": installation,
        "key": key,
        "previous": made.previous,
        "seq": made.seq,
        "version": _VERSION,
    }
    return made, json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def parse(body: bytes) -> Checkpoint:
    """ValueError for what is no checkpoint."""
    try:
        said = json.loads(body)
        found = Checkpoint(
            after=int(said["after"]),
            seq=int(said["seq"]),
            hashes=bytes.fromhex(said["hashes"]),
            at=datetime.fromisoformat(said["at"]),
            installation=str(said["installation"]),
            key=str(said["key"]),
            previous=None if said["previous"] is None else str(said["previous"]),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise ValueError(f"not a checkpoint: {exc!r}") from exc
    if said.get("version") != _VERSION or (found.seq - found.after) * _HASH != len(found.hashes) or not found.hashes:
        raise ValueError("not a checkpoint this program reads")
    return found


def digest(body: bytes) -> str:
    return sha256(body).hexdigest()


def serialise(signed: Signed) -> bytes:
    """A checkpoint as one line of JSON, as it is exported."""
    body = signed.body.decode("utf-8", "surrogateescape")
    return json.dumps({"checkpoint": body, "signature": signed.signature.hex()}).encode() + b"\n"


def deserialise(line: bytes) -> Signed:
    """ValueError for what is no exported checkpoint."""
    return read(json.loads(line))


def read(said: Mapping[str, str]) -> Signed:
    """The same of parsed JSON."""
    try:
        return Signed(str(said["checkpoint"]).encode("utf-8", "surrogateescape"), bytes.fromhex(said["signature"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise ValueError("not an exported checkpoint") from exc


@dataclass(frozen=True, slots=True)
class Trusted:
    """Checkpoints that hold, newest first, and what is wrong with the others."""

    checkpoints: tuple[Checkpoint, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def seq(self) -> int:
        """The newest link that is signed; 0: none is."""
        return self.checkpoints[0].seq if self.checkpoints else 0

    @property
    def at(self) -> datetime | None:
        """When it was."""
        return self.checkpoints[0].at if self.checkpoints else None

    def hashes(self, after: int, upto: int) -> Mapping[int, bytes]:
        """seq -> the hash that was signed, of the links after < seq <= upto."""
        first = bisect_left(self.checkpoints, -upto, key=lambda checkpoint: -checkpoint.seq)
        found = dict[int, bytes]()
        for checkpoint in self.checkpoints[max(0, first - 1) :]:
            if checkpoint.seq <= after:
                break
            for seq in range(max(after, checkpoint.after) + 1, min(upto, checkpoint.seq) + 1):
                begin = (seq - checkpoint.after - 1) * _HASH
                found[seq] = checkpoint.hashes[begin : begin + _HASH]
        return found


NOTHING = Trusted()


def trust(found: Iterable[Signed], keys: Mapping[str, bytes], verify: Verify, *, installation: str) -> Trusted:
    """Which checkpoints are authentic. `keys`: public keys by id; order and repetition of `found` do not matter.
    One of another installation counts for nothing.

    One signature vouches for all checkpoints before it, since each names the digest of the one before: on an untouched
    list one is verified, however long it is.
    """
    reasons, parsed = list[str](), dict[str, tuple[Checkpoint, Signed]]()
    for signed in found:
        try:
            parsed[digest(signed.body)] = (parse(signed.body), signed)
        except ValueError:
            reasons.append("A checkpoint cannot be read.")
    vouched, authentic, unknown = set[str](), list[Checkpoint](), dict[str, int]()
    for name, (checkpoint, signed) in sorted(parsed.items(), key=lambda item: -item[1][0].seq):
        if name not in vouched:
            key = keys.get(checkpoint.key)
            if key is None:
                unknown[checkpoint.key] = unknown.get(checkpoint.key, 0) + 1
                continue
            if not verify(key, signed.signature, signed.body):
                reasons.append(f"The checkpoint at link {checkpoint.seq} is not what was signed.")
                continue
            if checkpoint.installation != installation:
                reasons.append(f"The checkpoint at link {checkpoint.seq} is of another installation.")
                continue
        if checkpoint.previous is not None:
            vouched.add(checkpoint.previous)
        authentic.append(checkpoint)
    reasons += [f"Checkpoints signed by the key {key}, which is not known here: {n}." for key, n in unknown.items()]
    lost = sum(name not in parsed for name in vouched)
    if lost:
        reasons.append(f"Checkpoints that later ones name and are missing: {lost}.")
    return Trusted(tuple(authentic), tuple(reasons))
