"""Who may predict what: keys of the snapshot, by the SHA-256 of the bearer token. Nothing else is asked, or alive."""

import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from hashlib import sha256

from control_plane.contracts.snapshot import KeyGrant
from control_plane.errors import Forbidden, Unauthenticated
from control_plane.router.limits import Bucket
from control_plane.router.problems import Refused

_CACHE = 4096  # tokens remembered, good and bad; forgotten together when full


class Grant:
    """What one key may do; which models it matches is worked out once each."""

    __slots__ = ("_allowed", "_patterns", "expires_at", "key_id", "limit", "pin")

    def __init__(self, grant: KeyGrant, limit: Bucket | None) -> None:
        self.limit = limit
        self.key_id, self.pin, self.expires_at = grant.key_id, grant.pin, grant.expires_at
        self._patterns = grant.models
        self._allowed: dict[str, bool] = {}

    def allows(self, model: str) -> bool:
        allowed = self._allowed.get(model)
        if allowed is None:
            allowed = any(fnmatchcase(model, pattern) for pattern in self._patterns)
            if len(self._allowed) < _CACHE:
                self._allowed[model] = allowed
        return allowed


class Keys:
    """The keys of one snapshot."""

    def __init__(self, grants: Mapping[str, KeyGrant], limits: Mapping[str, Bucket]) -> None:
        """`limits`: by the key's id; a key that is not there has none."""
        self._grants = {digest: Grant(grant, limits.get(grant.key_id)) for digest, grant in grants.items()}
        self._seen: dict[bytes, Grant | None] = {}

    def grant(self, authorization: bytes | None, model: str) -> Grant:
        """The grant behind an Authorization header.

        Raises:
            Refused: 401 for no key, an unknown or expired one; 403 where it does not match the model. Whether the
                model exists is not told to a key that may not see it.
        """
        if authorization is None:
            raise Refused.of(Unauthenticated, "Send a key: Authorization: Bearer <key>.")
        try:
            grant = self._seen[authorization]
        except KeyError:
            grant = self._look_up(authorization)
        if grant is None or (grant.expires_at is not None and grant.expires_at <= time.time()):
            raise Refused.of(Unauthenticated, "The key is not known, or not valid any more.")
        if not grant.allows(model):
            raise Refused.of(Forbidden, f"The key may not use the model {model}.")
        return grant

    def _look_up(self, authorization: bytes) -> Grant | None:
        scheme, _, token = authorization.partition(b" ")
        grant = self._grants.get(sha256(token.strip()).hexdigest()) if scheme.lower() == b"bearer" else None
        if len(self._seen) >= _CACHE:
            self._seen.clear()
        self._seen[authorization] = grant
        return grant
