"""Ed25519 signatures, verified in plain Python (RFC 8032, section 5.1.7), so that a record can be checked offline with
nothing but the standard library. Signing is not here: a secret key needs code whose time does not depend on it.
"""

import base64
import hashlib

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)  # of -1
_SPKI = bytes.fromhex("302a300506032b6570032100")  # what comes before the key in its DER form (RFC 8410)
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
Point = tuple[int, int, int, int]  # X, Y, Z, T of extended coordinates: x = X/Z, y = Y/Z, xy = T/Z


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) is the holder of `public`'s (32 bytes) over `message`. About 4 ms."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, nonce = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or nonce is None or s >= _ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    return _equal(_times(s, _BASE), _add(nonce, _times(challenge, key)))


def key_id(public: bytes) -> str:
    """A short name of a public key, to say which one signed."""
    return hashlib.sha256(public).hexdigest()[:16]


def from_pem(text: str) -> tuple[bytes, ...]:
    """The 32 bytes of every PEM block "PUBLIC KEY" in `text`. ValueError when there is none, or another kind."""
    found = list[bytes]()
    for block in text.split(_BEGIN)[1:]:
        body, end, _ = block.partition(_END)
        der = base64.b64decode("".join(body.split()), validate=True)
        if not end or len(der) != len(_SPKI) + 32 or not der.startswith(_SPKI):
            raise ValueError("not an Ed25519 public key in PEM")
        found.append(der[len(_SPKI) :])
    if not found:
        raise ValueError("no public key in PEM")
    return tuple(found)


def _x_of(y: int, odd: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    if y >= _P or (square == 0 and odd):
        return None
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P:
        return None
    return _P - x if x % 2 != odd else x


def _point(encoded: bytes) -> Point | None:
    """None for bytes that are no point of the curve."""
    number = int.from_bytes(encoded, "little")
    y = number & ((1 << 255) - 1)
    x = _x_of(y, number >> 255)
    return None if x is None else (x, y, 1, x * y % _P)


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times(factor: int, p: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            total = _add(total, p)
        p = _add(p, p)
        factor >>= 1
    return total


def _equal(p: Point, q: Point) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % _P == 0 and (p[1] * q[2] - q[1] * p[2]) % _P == 0


_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE: Point = (_x_of(_Y, 0) or 0, _Y, 1, (_x_of(_Y, 0) or 0) * _Y % _P)
