"""Idempotency-Key: the same request is carried out once, and answered the same way for a day."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, TypeVar

from fastapi import Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import idempotency
from control_plane.adapters.store.idempotency import Answer
from control_plane.errors import Conflict, IdempotencyMismatch
from control_plane.services.keys import Principal

View = TypeVar("View", bound=BaseModel)
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=200, description="Makes sending this twice harmless."),
]


@dataclass(frozen=True, slots=True)
class Once:
    """One request that may have been sent before."""

    request: Request
    session: AsyncSession
    principal: Principal
    key: str | None
    now: datetime

    async def __call__(
        self,
        act: Callable[[], Awaitable[View]],
        *,
        status: int | Callable[[View], int] = 200,
        secret: bool = False,
    ) -> View | Response:
        """`act`'s result, or the stored answer. `secret`: the answer must not be kept, so it cannot be given again.
        `status`: what the route answers with, if need be by the result.

        The answer is stored in the same transaction, as its very last statement: after the audit row, whose lock it
        holds for one insert more; it waits for nobody.

        Raises:
            IdempotencyMismatch: the key was used for another request.
        """
        if self.key is None:
            return await act()
        asked = sha256(await self._request()).digest()
        known = await idempotency.claim(self.session, self.principal.id, self.key, now=self.now)
        if known is not None:
            return _again(known, asked)
        result = await act()
        told = status if isinstance(status, int) else status(result)
        body = b"" if secret else result.model_dump_json().encode()
        await idempotency.keep(self.session, self.principal.id, self.key, Answer(asked, told, body), now=self.now)
        return result

    async def _request(self) -> bytes:
        line = f"{self.request.method} {self.request.url.path}?{self.request.url.query}\n"
        return line.encode() + (self.request.headers.get("if-match") or "").encode() + b"\n" + await self.request.body()


def _again(known: Answer, asked: bytes) -> Response:
    if known.request_hash != asked:
        raise IdempotencyMismatch("This Idempotency-Key was used for another request; take a new one.")
    if not known.body:
        raise Conflict("This was done before, and its secret was shown that once: revoke the key and make another.")
    headers = {"Idempotency-Replayed": "true"}
    return Response(known.body, known.status, headers, media_type="application/json")
