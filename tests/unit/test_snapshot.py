from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.contracts.snapshot import SCHEMA, Arm, KeyGrant, ModelRoute, Shadow, Snapshot, Target, decode, encode


def snapshot(*, weights: tuple[int, ...] = (10_000,), schema: int = SCHEMA, shadow: str = "t0") -> Snapshot:
    targets = {f"t{i}": Target(id=f"t{i}", version=str(i), digest="sha256:0", address="unix:/x") for i in range(3)}
    arms = tuple(Arm(variant="stable", weight=w, target=f"t{i}") for i, w in enumerate(weights))
    route = ModelRoute(targets=targets, arms=arms, salt="s", shadows=(Shadow(target=shadow, weight=100),))
    keys = {"ab": KeyGrant(key_id="k", models=("*",), pin=True)}
    return Snapshot(
        schema_version=schema,
        epoch=1,
        revision=7,
        created_at="2026-01-01T00:00:00Z",
        models={"fraud": route},
        keys=keys,
    )


def test_what_is_encoded_is_read_back() -> None:
    back = decode(encode(snapshot()))
    assert msgspec.structs.replace(back, checksum="") == snapshot()


@given(st.data())
def test_no_changed_byte_is_accepted(data: st.DataObject) -> None:
    document = bytearray(encode(snapshot()))
    document[data.draw(st.integers(0, len(document) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match=r"checksum|snapshot"):
        decode(bytes(document))


@given(st.integers(0, 400))
def test_a_truncated_document_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="checksum"):
        decode(encode(snapshot())[:length])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (snapshot(weights=(9_999,)), "sum"),
        (snapshot(weights=(10_001, -1)), "sum"),
        (snapshot(shadow="gone"), "gone"),
        (snapshot(schema=SCHEMA + 1), "schema"),
    ],
)
def test_a_snapshot_that_cannot_route_is_refused_with_the_reason(bad: Snapshot, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(encode(bad))


def test_a_field_of_a_later_release_is_ignored_and_still_under_the_checksum() -> None:
    later = msgspec.json.decode(encode(snapshot()))
    later = {k: v for k, v in later.items() if k != "checksum"} | {"added_later": 1}
    body = msgspec.json.encode(later)[:-1]
    assert decode(body + b',"checksum":"' + sha256(body).hexdigest().encode() + b'"}').revision == 7
