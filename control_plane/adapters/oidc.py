"""Tokens of an identity provider (OpenID Connect): JWTs, verified against the keys it publishes.

The only module that knows PyJWT. What it settles by itself: signature, algorithm, issuer, audience, times. What a
token is worth here is decided elsewhere. Sources: RFC 7519, RFC 8725 (best practices), OpenID Connect Discovery 1.0.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx
import jwt
import structlog
from jwt.exceptions import InvalidKeyError, PyJWKError, PyJWTError

from control_plane.errors import Unavailable

log = structlog.get_logger()
_LONGEST_TOKEN = 16_384  # characters
_LONGEST_ANSWER = 1_048_576  # bytes of a document of the provider
_FRESH_S = 3_600.0  # keys older than this are asked for again
_KEPT_S = 86_400.0  # how long keys count that cannot be asked for again
_PAUSE_S = 10.0  # at least, between two times the provider is asked: unknown key ids cost it nothing
_REQUIRED = ["exp", "iss", "aud", "sub"]


class Refused(Exception):
    """A token that is not valid. `kind` is for counting, never for its bearer."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Trusted:
    """Whose tokens count, and which of them. `jwks_url` None: the provider's discovery document names it."""

    issuer: str
    audience: str
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway_s: float = 30.0


class Issuer:
    """An identity provider with its keys, asked for when first needed, each hour, and when a new key id comes up.

    While the provider does not answer, the keys known go on counting for a day.
    """

    def __init__(
        self,
        trusted: Trusted,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trusted, self._clock = trusted, clock
        self._http = httpx.AsyncClient(timeout=5, transport=transport, headers={"Accept": "application/json"})
        self._lock = asyncio.Lock()
        self._keys: dict[str | None, dict[str, Any]] = {}
        self._read_at = self._asked_at = -float("inf")

    async def close(self) -> None:
        await self._http.aclose()

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What the provider says of the token's bearer.

        Raises:
            Refused: the token is not valid, whatever the reason.
            Unavailable: there is no key to judge it by, and the provider does not answer.
        """
        if len(token) > _LONGEST_TOKEN:
            raise Refused("malformed", "longer than any token")
        try:
            header = jwt.get_unverified_header(token)
        except PyJWTError as exc:
            raise Refused("malformed", str(exc)) from exc
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._trusted.algorithms:  # before any key is looked at: `none`, and HMAC with a public key
            raise Refused("algorithm", f"algorithm {algorithm!r}")
        found = await self._key(kid)
        if found is None:
            raise Refused("key", f"key id {kid!r}")
        try:
            key = jwt.PyJWK(found, algorithm=algorithm)  # refuses a key of another family
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._trusted.issuer,
                audience=self._trusted.audience,
                leeway=self._trusted.leeway_s,
                options={"require": _REQUIRED},
            )
        except (PyJWKError, InvalidKeyError) as exc:
            raise Refused("key", str(exc)) from exc
        except PyJWTError as exc:
            raise Refused(_kind(exc), str(exc)) from exc

    async def _key(self, kid: str | None) -> dict[str, Any] | None:
        if self._clock() - self._read_at > _FRESH_S or self._known(kid) is None:
            async with self._lock:  # whoever waited here finds what the first one brought
                if self._clock() - self._asked_at >= _PAUSE_S and (
                    self._clock() - self._read_at > _FRESH_S or self._known(kid) is None
                ):
                    await self._ask()
        if self._clock() - self._read_at > _KEPT_S:
            raise Unavailable("The identity provider does not answer, and none of its keys is known here.")
        return self._known(kid)

    def _known(self, kid: str | None) -> dict[str, Any] | None:
        if kid is None:  # allowed where there is nothing to choose from
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _ask(self) -> None:
        self._asked_at = self._clock()
        try:
            url = self._trusted.jwks_url or await self._discovered()
            keys = (await self._json(url)).get("keys")
            if not isinstance(keys, list):
                raise ValueError("the document has no list of keys")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
            log.warning("the identity provider's keys cannot be read", issuer=self._trusted.issuer, error=str(exc))
            return
        shown = [cast("dict[str, Any]", key) for key in cast("list[object]", keys) if isinstance(key, dict)]
        self._keys = {key.get("kid"): key for key in shown if _signs(key)}
        self._read_at = self._clock()
        log.info("the identity provider's keys", issuer=self._trusted.issuer, keys=sorted(map(str, self._keys)))

    async def _discovered(self) -> str:
        found = await self._json(self._trusted.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self._trusted.issuer:
            raise ValueError(f"the discovery document is of {found.get('issuer')!r}")
        return str(found.get("jwks_uri"))

    async def _json(self, url: str) -> dict[str, Any]:
        async with self._http.stream("GET", url) as answer:  # redirects are not followed
            answer.raise_for_status()
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _LONGEST_ANSWER:
                    raise ValueError(f"{url} answers more than {_LONGEST_ANSWER} bytes")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError(f"{url} answers no JSON object")
        return cast("dict[str, Any]", found)


def _signs(key: Mapping[str, Any]) -> bool:
    """A public key for signatures; a shared secret has no business among published keys."""
    return key.get("kty") in {"RSA", "EC", "OKP"} and key.get("use", "sig") == "sig"


def _kind(exc: PyJWTError) -> str:
    match exc:
        case jwt.ExpiredSignatureError() | jwt.ImmatureSignatureError() | jwt.InvalidIssuedAtError():
            return "time"
        case jwt.InvalidAudienceError():
            return "audience"
        case jwt.InvalidIssuerError():
            return "issuer"
        case jwt.MissingRequiredClaimError():
            return "claim"
        case jwt.InvalidSignatureError():
            return "signature"
        case _:
            return "malformed"
