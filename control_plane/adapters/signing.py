"""The key audit checkpoints are signed with: Ed25519, in a file of this host or handed over by a secret store.

Never in the database: whoever can rewrite the chain must not be able to sign it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from control_plane.domain import ed25519
from control_plane.errors import InvalidConfig

PRIVATE, PUBLIC = "audit-signing.key", "audit-signing.pub"
_RAW, _PEM = serialization.Encoding.Raw, serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Signer:
    private: Ed25519PrivateKey

    @property
    def key(self) -> str:
        """The id of its public key."""
        return ed25519.key_id(self.private.public_key().public_bytes(_RAW, serialization.PublicFormat.Raw))

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


def ensure(folder: Path) -> bool:
    """Make a key pair in `folder` (keys/) if there is none; whether it was made. The private file is 0600.

    A public file that is lost is written anew. The private key is there before the public one names it.
    """
    private = folder / PRIVATE
    made = not private.exists()
    if made:
        pem = Ed25519PrivateKey.generate().private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(private, pem)
    if made or not (folder / PUBLIC).exists():
        public = load(private).private.public_key()
        _write(folder / PUBLIC, public.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return made


def load(file: Path, pem: str | None = None) -> Signer:
    """The key in `pem`, else in `file`. InvalidConfig: there is none that can be used."""
    try:
        found = serialization.load_pem_private_key(pem.encode() if pem else file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as exc:
        where = "MLCP_AUDIT_SIGNING_KEY" if pem else str(file)
        raise InvalidConfig(f"{where} holds no private key that can be used: {exc}") from exc
    if not isinstance(found, Ed25519PrivateKey):
        raise InvalidConfig("The key audit checkpoints are signed with has to be an Ed25519 key.")
    return Signer(found)


def public_keys(file: Path) -> dict[str, bytes]:
    """The keys in a PEM file, by id; more than one where keys were changed. None where there is no file.

    InvalidConfig: it is there and cannot be used.
    """
    try:
        return {ed25519.key_id(key): key for key in ed25519.from_pem(file.read_text())}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise InvalidConfig(f"{file} holds no public key that can be used: {exc}") from exc


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """As `domain.ed25519.verify`, in native code."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
