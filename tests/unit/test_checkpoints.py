"""Signed checkpoints: nothing at or before the last one can be changed, whoever recomputes what."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control_plane.domain import audit, audit_export, checkpoints, ed25519
from control_plane.domain.audit import GENESIS, Link
from control_plane.domain.checkpoints import Signed, Trusted
from control_plane.errors import InvalidInput

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = ed25519.key_id(PRIVATE.public_key().public_bytes_raw())
KEYS = {KEY: PRIVATE.public_key().public_bytes_raw()}


def chain(payloads: Sequence[bytes]) -> list[Link]:
    links = [GENESIS]
    for payload in payloads:
        links.append(audit.follow(links[-1], payload))
    return links[1:]


def signed(links: Sequence[Link], every: int, upto: int, private: Ed25519PrivateKey = PRIVATE) -> list[Signed]:
    found = list[Signed]()
    key = ed25519.key_id(private.public_key().public_bytes_raw())
    for start in range(0, upto, every):
        part = links[start : min(start + every, upto)]
        _, body = checkpoints.compose(part, previous=found[-1] if found else None, installation="i", key=key, at=NOW)
        found.append(Signed(body, private.sign(body)))
    return found


def trusted(found: Sequence[Signed]) -> Trusted:
    return checkpoints.trust(found, KEYS, ed25519.verify, installation="i")


PAYLOADS = [f"record {n}".encode() for n in range(1, 31)]
LINKS = chain(PAYLOADS)
SIGNED = signed(LINKS, 7, 25)


def verdict(links: Sequence[Link]) -> int | None:
    believed = trusted(SIGNED)
    return audit.ended(audit.walk(links, believed.hashes(0, 10**6)), believed.seq).first_bad


@pytest.mark.parametrize("at", [1, 7, 8, 25])
@pytest.mark.parametrize(
    "forge",
    [
        lambda payloads, i: [*payloads[:i], b"forged", *payloads[i + 1 :]],
        lambda payloads, i: [*payloads[:i], *payloads[i + 1 :]],
        lambda payloads, i: [*payloads[:i], b"forged", *payloads[i:]],
        lambda payloads, i: [*payloads[:i], payloads[i + 1], payloads[i], *payloads[i + 2 :]],
        lambda payloads, i: payloads[:i],
    ],
    ids=["edited", "deleted", "inserted", "reordered", "cut"],
)
def test_a_chain_rebuilt_from_some_link_on_is_found_at_that_link(
    forge: Callable[[list[bytes], int], list[bytes]], at: int
) -> None:
    forged = chain(forge(PAYLOADS, at - 1))
    assert audit.first_bad(forged) is None  # by its own hashes it is whole
    assert verdict(forged) == at
    assert verdict(LINKS) is None


def test_what_comes_after_the_last_checkpoint_is_known_by_the_chain_alone() -> None:
    assert verdict(chain([*PAYLOADS[:25], b"another"])) is None
    assert verdict(LINKS[:25]) is None
    assert verdict(LINKS[:24]) == 25


def test_one_signature_vouches_for_all_checkpoints_before_it() -> None:
    asked = list[bytes]()

    def counting(key: bytes, signature: bytes, message: bytes) -> bool:
        asked.append(message)
        return ed25519.verify(key, signature, message)

    found = checkpoints.trust([*SIGNED[::-1], SIGNED[2]], KEYS, counting, installation="i")
    assert (len(asked), len(found.checkpoints), found.seq, found.reasons) == (1, 4, 25, ())
    assert found.hashes(6, 8) == {7: LINKS[6].hash, 8: LINKS[7].hash}
    assert found.hashes(0, 100) == {link.seq: link.hash for link in LINKS[:25]}
    assert found.hashes(25, 30) == {}


def test_a_checkpoint_that_was_touched_is_not_believed_and_said() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    forged = signed(chain([b"forged", *PAYLOADS[1:]]), 7, 25, stranger)
    named = ed25519.key_id(stranger.public_key().public_bytes_raw())
    assert trusted(forged).reasons == (f"Checkpoints signed by the key {named}, which is not known here: 4.",)
    renamed = [Signed(one.body.replace(named.encode(), KEY.encode()), one.signature) for one in forged]
    assert trusted(renamed).checkpoints == ()
    edited = [*SIGNED[:2], Signed(SIGNED[2].body.replace(b'"seq":21', b'"seq":22'), SIGNED[2].signature), SIGNED[3]]
    assert trusted(edited).reasons[0] == "A checkpoint cannot be read."
    assert trusted([*SIGNED[:2], *SIGNED[3:]]).reasons == ("Checkpoints that later ones name and are missing: 1.",)
    assert trusted([*SIGNED[:3], Signed(SIGNED[3].body, bytes(64))]).seq == 21
    elsewhere = checkpoints.trust(SIGNED, KEYS, ed25519.verify, installation="another")
    assert elsewhere.checkpoints == ()
    assert elsewhere.reasons


def test_it_is_signed_after_a_minute_or_a_hundred_links() -> None:
    young, old = NOW - timedelta(seconds=59), NOW - timedelta(seconds=60)
    assert not checkpoints.due(10, 10, None, now=NOW)
    assert not checkpoints.due(11, 10, young, now=NOW)
    assert checkpoints.due(11, 10, old, now=NOW)
    assert checkpoints.due(110, 10, young, now=NOW)


def test_checkpoints_come_back_from_a_line_whatever_their_bytes() -> None:
    for one in (SIGNED[0], Signed(b"\xff\xfe", b"")):
        assert checkpoints.deserialise(checkpoints.serialise(one)) == one
    for body in (b"", b"[]", b"{}", SIGNED[0].body.replace(b'"version":1', b'"version":2')):
        with pytest.raises(ValueError, match="checkpoint"):
            checkpoints.parse(body)


# --- exports ---


def export(links: Sequence[Link], found: Sequence[Signed] = SIGNED) -> list[bytes]:
    lines = [audit_export.header("i", NOW), *map(checkpoints.serialise, found), *map(audit_export.link, links)]
    return [*lines, audit_export.end(len(found), len(links))]


def test_an_export_is_verified_with_the_public_key_alone() -> None:
    found = audit_export.verify(export(LINKS), KEYS, ed25519.verify)
    assert (found.walked.links, found.walked.first_bad, found.trusted.seq) == (30, None, 25)
    odd = chain([*PAYLOADS[:9], b"\xff\x00", *PAYLOADS[10:]])
    assert audit_export.verify(export(odd), KEYS, ed25519.verify).walked.first_bad == 10
    assert audit_export.verify(export(LINKS[:20]), KEYS, ed25519.verify).walked.first_bad == 21
    assert audit_export.verify(export(LINKS, SIGNED[:3]), KEYS, ed25519.verify).trusted.seq == 21


@pytest.mark.parametrize(
    "lines",
    [[], [b"x"], [b"[]"], [b"{}"], export(LINKS)[:-1], export(LINKS)[1:], [*export(LINKS)[:1], b'{"link":1}']],
)
def test_what_is_no_whole_export_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(InvalidInput):
        audit_export.verify(lines, KEYS, ed25519.verify)
