"""Numbers out of Prometheus, for analyses that name a query. The HTTP API's instant query, nothing else."""

import math
from dataclasses import dataclass
from typing import Any, cast

import httpx

_PATIENCE_S = 3.0
STALE_S = 120.0  # a sample older than this is no news


@dataclass(frozen=True, slots=True)
class Reading:
    """Exactly one of them is set: the value, why there is no news, or why it could not be asked for."""

    value: float | None = None
    stale: str | None = None
    error: str | None = None


async def read(url: str, query: str, *, now: float) -> Reading:
    """One number for `query` at `now` (Unix seconds). A range is no number; several series are an error.

    The sample's own time is asked for beside it: Prometheus repeats a vanished series for five minutes.
    """
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_PATIENCE_S) as client:
            value = await _ask(client, query, now)
            if isinstance(value, Reading):
                return value
            at = await _ask(client, f"max(timestamp({query}))", now)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
        return Reading(error=f"Prometheus does not answer the query: {exc!r}")
    if isinstance(at, float) and now - at > STALE_S:
        return Reading(stale=f"the newest sample is {now - at:.0f} s old")
    return Reading(value)


async def _ask(client: httpx.AsyncClient, query: str, now: float) -> float | Reading:
    answer = await client.get("/api/v1/query", params={"query": query, "time": f"{now:.3f}"})
    document = cast("dict[str, Any]", answer.json())
    if document.get("status") != "success":
        return Reading(error=f"Prometheus refuses the query: {document.get('error', answer.status_code)}")
    data = cast("dict[str, Any]", document["data"])
    if data["resultType"] == "scalar":
        return _number(data["result"][1])
    found = cast("list[dict[str, Any]]", data["result"])
    if not found:
        return Reading(stale="no series answers the query")
    if len(found) > 1:
        return Reading(error=f"{len(found)} series answer the query, one is needed")
    return _number(found[0]["value"][1])


def _number(text: str) -> float | Reading:
    value = float(text)
    return value if math.isfinite(value) else Reading(stale=f"its value is {text}")
