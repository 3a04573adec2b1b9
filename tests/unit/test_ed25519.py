"""Signatures verified in plain Python, against RFC 8032 and an independent implementation."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.domain import ed25519

# RFC 8032, section 7.1: secret key, public key, message, signature
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
        "eeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
        "8dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_standard_hold(public: str, message: str, signature: str) -> None:
    key, said, signed = map(bytes.fromhex, (public, message, signature))
    assert ed25519.verify(key, signed, said)
    assert not ed25519.verify(key, signed, said + b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    malleable = signed[:32] + (int.from_bytes(signed[32:], "little") + order).to_bytes(32, "little")
    assert not ed25519.verify(key, malleable, said)  # the same signature in another form


@settings(max_examples=15)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(0, 63), st.integers(0, 7))
def test_what_another_implementation_signed_holds_and_a_flipped_bit_does_not(
    seed: bytes, message: bytes, byte: int, bit: int
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    signature = private.sign(message)
    assert ed25519.verify(public, signature, message)
    wrong = bytearray(signature)
    wrong[byte] ^= 1 << bit
    assert not ed25519.verify(public, bytes(wrong), message)


def test_bytes_that_are_no_key_and_no_signature_are_refused() -> None:
    key = bytes.fromhex(VECTORS[0][0])
    for public, signature in ((b"", bytes(64)), (key, b""), (b"\xff" * 32, bytes(64)), (key, b"\xff" * 64)):
        assert not ed25519.verify(public, signature, b"")


def test_keys_come_from_pem_and_other_kinds_of_keys_are_refused() -> None:
    def pem(public: object) -> str:
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return public.public_bytes(serialization.Encoding.PEM, kind).decode()  # type: ignore[attr-defined,no-any-return]

    one, two = (Ed25519PrivateKey.generate().public_key() for _ in range(2))
    assert ed25519.from_pem(pem(one) + "\n" + pem(two)) == (one.public_bytes_raw(), two.public_bytes_raw())
    other = pem(ec.generate_private_key(ec.SECP256R1()).public_key())
    for text in ("", "nothing", other, pem(one).replace("-----END", ""), pem(one).replace("MCow", "M%ow")):
        with pytest.raises(ValueError):  # noqa: PT011  (several messages)
            ed25519.from_pem(text)
