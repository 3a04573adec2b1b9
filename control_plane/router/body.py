"""The predict body: what of it the router reads. Features stay the bytes they came as."""

import json
import math
from typing import cast

import msgspec

from control_plane.contracts.outcome_rules import UNIT_LIMIT
from control_plane.router.problems import Refused

REQUEST_ID_LIMIT = 200


class Body(msgspec.Struct):
    features: msgspec.Raw
    unit_id: str | None = None
    request_id: str | None = None
    model_version: str | int | None = None


_BRACE = ord("{")
_decode = msgspec.json.Decoder(Body).decode


def parse(data: bytes) -> Body:
    """Read a predict body. NaN and infinity are no JSON and are refused like any other malformed text.

    Raises:
        Refused: 422, naming everything that is wrong with what the router reads; features are the model server's.
    """
    try:
        if not data.isascii():
            data.decode()  # features are passed on and kept unread, so the text has to be sound here
        body = _decode(data)
    except UnicodeDecodeError as exc:
        raise Refused.invalid([f"body: not UTF-8 at byte {exc.start}"]) from None
    except msgspec.ValidationError as exc:
        raise Refused.invalid(_reasons(data) or [f"body: {exc}"]) from None
    except msgspec.DecodeError as exc:
        raise Refused.invalid(_not_finite(data) or [f"body: {exc}"]) from None
    except RecursionError:
        raise Refused.invalid(["body: nested too deeply"]) from None
    if memoryview(body.features)[0] != _BRACE:
        raise Refused.invalid(["features: expected an object"])
    return body


def checked_unit(unit: str, where: str) -> bytes:
    """The unit as the bytes that are hashed. Refused when it is empty, too long, or no storable text."""
    data = unit.encode()
    if not data or len(data) > UNIT_LIMIT:
        raise Refused.invalid([f"{where}: must be 1 to {UNIT_LIMIT} bytes of UTF-8, got {len(data)}"])
    if b"\0" in data:
        raise Refused.invalid([f"{where}: must not contain NUL"])
    return data


def unit_of_header(value: bytes) -> str:
    """X-Unit-Id as text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused.invalid(["X-Unit-Id: not UTF-8"]) from None


def checked_request_id(request_id: str) -> str:
    if len(request_id) > REQUEST_ID_LIMIT or "\0" in request_id:
        raise Refused.invalid([f"request_id: must be at most {REQUEST_ID_LIMIT} characters, none of them NUL"])
    return request_id


def _reasons(data: bytes) -> list[str]:
    """Everything that is wrong with a body that is JSON. The slow way: only asked once it is known to be wrong."""
    try:
        document = msgspec.json.decode(data)
    except msgspec.DecodeError:  # a number beyond a double's range, which the caller names
        return []
    except RecursionError:
        return ["body: nested too deeply"]
    if not isinstance(document, dict):
        return ["body: expected an object"]
    members = cast("dict[str, object]", document)
    found = list[str]()
    if "features" not in members:
        found.append("features: missing")
    elif not isinstance(members["features"], dict):
        found.append("features: expected an object")
    found += [
        f"{name}: expected a string"
        for name in ("unit_id", "request_id", "model_version")
        if not isinstance(members.get(name), str | None)
        and not (name == "model_version" and _is_integer(members[name]))
    ]
    return found


def _not_finite(data: bytes) -> list[str]:
    """The features of a body that would be JSON but for NaN or infinity, which Python's reader alone lets pass."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return []
    features = cast("dict[str, object]", document).get("features") if isinstance(document, dict) else None
    if not isinstance(features, dict):
        return []
    return [
        f"features.{name}: NaN and infinity are no JSON numbers; send null for a value that is not known"
        for name, value in cast("dict[str, object]", features).items()
        if isinstance(value, float) and not math.isfinite(value)
    ]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
