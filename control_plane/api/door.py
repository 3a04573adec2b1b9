"""What the API keeps between requests about who may come in: the identity provider's keys, and failed attempts.

Nobody guesses 256 random bits or a signature. Failures are limited so that trying costs the database nothing, and
counted so that somebody notices.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import structlog

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.oidc import Issuer, Refused, Trusted
from control_plane.errors import RateLimited, Unauthenticated
from control_plane.settings import SignIn
from control_plane.telemetry import Metric

log = structlog.get_logger()
_ADDRESSES = 10_000  # remembered, the longest unheard of forgotten first
_CREDENTIALS = 4_096


class Door:
    """`attempts`: failures a minute that one address has, all at once if it likes."""

    def __init__(
        self, settings: SignIn, metrics: Metrics | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._attempts = clock, settings.failed_sign_ins_per_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> attempts left, as of
        self._good: OrderedDict[bytes, None] = OrderedDict()  # digests of credentials that were right lately
        self._counter = (
            metrics.counter(Metric.SIGN_INS_FAILED, "Credentials that were refused, by what was wrong.", ("kind",))
            if metrics
            else None
        )
        self._issuer = None if settings.oidc_issuer is None else Issuer(_trusted(settings))

    async def close(self) -> None:
        if self._issuer is not None:
            await self._issuer.close()

    def is_token(self, credential: str) -> bool:
        """A JWT, where some are taken; else it is a key, or nothing."""
        return self._issuer is not None and credential.count(".") == 2 and not credential.startswith("mlcp_")

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What the identity provider says of its bearer. Unauthenticated without saying what is wrong: the log does."""
        assert self._issuer is not None
        try:
            return await self._issuer.claims(token)
        except Refused as exc:
            log.info("token refused", kind=exc.kind, why=str(exc))
            raise Unauthenticated("The token is not valid.", kind=exc.kind) from exc

    def admit(self, address: str, credential: str) -> None:
        """RateLimited for an address with too many failures lately, unless it shows what was right before."""
        if self._tokens(address) < 1 and _digest(credential) not in self._good:
            raise RateLimited("Too many failed attempts from this address.", retry_after_s=60 / self._attempts)

    def failed(self, address: str, kind: str) -> None:
        self._left[address] = max(0.0, self._tokens(address) - 1), self._clock()
        self._left.move_to_end(address)
        while len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
        if self._counter is not None:
            self._counter.labels(kind).inc()

    def passed(self, credential: str) -> None:
        digest = _digest(credential)
        self._good[digest] = None
        self._good.move_to_end(digest)
        while len(self._good) > _CREDENTIALS:
            self._good.popitem(last=False)

    def _tokens(self, address: str) -> float:
        left, at = self._left.get(address, (float(self._attempts), self._clock()))
        return min(float(self._attempts), left + (self._clock() - at) * self._attempts / 60)


def _digest(credential: str) -> bytes:
    return sha256(credential.encode(errors="surrogatepass")).digest()


def _trusted(settings: SignIn) -> Trusted:
    assert settings.oidc_issuer is not None
    assert settings.oidc_audience is not None
    return Trusted(
        settings.oidc_issuer,
        settings.oidc_audience,
        settings.oidc_jwks_url,
        settings.oidc_algorithms,
        settings.oidc_leeway_s,
    )
