"""Lists that are longer than one answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from control_plane.contracts.base import Page

Item = TypeVar("Item")


def every(fetch: Callable[..., Page[Item]], *arguments: object, **named: object) -> Iterator[Item]:
    """All items of all pages: `every(cp.rollouts, model="churn")`. Asks for the next page when it is needed."""
    cursor: str | None = None
    while True:
        page = fetch(*arguments, **named, cursor=cursor)
        yield from page.items
        if (cursor := page.next) is None:
            return


async def async_every(
    fetch: Callable[..., Awaitable[Page[Item]]], *arguments: object, **named: object
) -> AsyncIterator[Item]:
    """The same with the asynchronous client: `async for rollout in async_every(cp.rollouts): ...`."""
    cursor: str | None = None
    while True:
        page = await fetch(*arguments, **named, cursor=cursor)
        for item in page.items:
            yield item
        if (cursor := page.next) is None:
            return
