"""The audit as one file: JSON lines that anybody can verify with a public key and nothing else. Pure.

    {"format": "mlcp-audit", "version": 1, "installation": ..., "at": ...}
    {"checkpoint": the signed bytes, "signature": hex}      every one, in order
    {"link": seq, "hash": hex, "payload": the record's bytes}  every one, in order
    {"end": {"checkpoints": n, "links": n}}                 without it the file was cut off

Bytes are kept as JSON text; those that are no UTF-8 (nobody but a forger writes any) as lone surrogates.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from control_plane.domain import audit, checkpoints
from control_plane.domain.audit import Link, Walk
from control_plane.domain.checkpoints import NOTHING, Signed, Trusted, Verify
from control_plane.errors import InvalidInput

_FORMAT, _VERSION = "mlcp-audit", 1
_AT_ONCE = 1_000  # links


@dataclass(frozen=True, slots=True)
class Verified:
    installation: str
    at: datetime  # when it was exported
    walked: Walk
    trusted: Trusted


def header(installation: str, at: datetime) -> bytes:
    return _line({"format": _FORMAT, "version": _VERSION, "installation": installation, "at": at.isoformat()})


def link(one: Link) -> bytes:
    text = one.payload.decode("utf-8", "surrogateescape")
    return _line({"link": one.seq, "hash": one.hash.hex(), "payload": text})


def end(checkpoints: int, links: int) -> bytes:
    return _line({"end": {"checkpoints": checkpoints, "links": links}})


def verify(lines: Iterable[bytes], keys: Mapping[str, bytes], check: Verify) -> Verified:
    """Hold an export against public keys (by id). InvalidInput: it is no whole export of ours.

    Checkpoints of another installation than the header names count for nothing.
    """
    found = _objects(lines)
    first = next(found, dict[str, Any]())
    if first.get("format") != _FORMAT or first.get("version") != _VERSION:
        raise InvalidInput("The file is no export of an audit chain this program reads.")
    installation, signed, said, walked, trusted = str(first.get("installation")), list[Signed](), first, Walk(), NOTHING
    batch, seen, over = list[Link](), 0, False

    def caught_up() -> Walk:
        return audit.walk(batch, trusted.hashes(walked.head.seq, batch[-1].seq), after=walked) if batch else walked

    for said in found:
        if "checkpoint" in said and not seen:
            signed.append(_checkpoint(said))
        elif "link" in said:
            if not seen:
                trusted = checkpoints.trust(signed, keys, check, installation=installation)
            batch.append(_link(said))
            seen += 1
            if len(batch) == _AT_ONCE:
                walked, batch = caught_up(), []
        elif "end" in said:
            over = said["end"] == {"checkpoints": len(signed), "links": seen}
    if not over:
        raise InvalidInput("The file was cut off: its last line does not say what is in it.")
    if not seen:
        trusted = checkpoints.trust(signed, keys, check, installation=installation)
    walked = audit.ended(caught_up(), trusted.seq)
    return Verified(installation, datetime.fromisoformat(str(first.get("at"))), walked, trusted)


def _objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            said: object = json.loads(line)
        except ValueError as exc:
            raise InvalidInput(f"Line {number} of the file is no JSON.") from exc
        if not isinstance(said, dict):
            raise InvalidInput(f"Line {number} of the file is no JSON object.")
        yield cast("dict[str, Any]", said)


def _checkpoint(said: Mapping[str, Any]) -> Signed:
    try:
        return checkpoints.read(said)
    except ValueError as exc:
        raise InvalidInput("A checkpoint of the file cannot be read.") from exc


def _link(said: Mapping[str, Any]) -> Link:
    try:
        payload = str(said["payload"]).encode("utf-8", "surrogateescape")
        return Link(int(said["link"]), payload, bytes.fromhex(said["hash"]))
    except (KeyError, ValueError, TypeError) as exc:
        raise InvalidInput("A link of the file cannot be read.") from exc


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
