"""A summary from any endpoint that speaks the OpenAI chat completions API. What it says is held against the facts."""

from collections.abc import Sequence
from typing import Any

import httpx

from control_plane.errors import Unavailable

_TIMEOUT_S = 60.0
_ASKED = (
    "You write the executive summary of a report on a machine-learning model for a risk officer: at most six plain "
    "sentences, no headings. Use only what the JSON says. Write numbers exactly as they stand there and compute none. "
    "State no opinion on compliance."
)


async def written(url: str, model: str, key: str | None, template: Sequence[str], facts: str) -> str:
    """The text the model answers with. Unavailable: no answer, or one that is no completion.

    `url`: up to and without /chat/completions. `facts`: the report's JSON, which holds no personal data.
    """
    said = f"Summary by template: {' '.join(template)}\n\nFacts: {facts}"
    messages = [{"role": "system", "content": _ASKED}, {"role": "user", "content": said}]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            response = await client.post(
                f"{url.rstrip('/')}/chat/completions",
                json={"model": model, "messages": messages, "temperature": 0},
                headers=headers,
            )
            response.raise_for_status()
            answer: Any = response.json()
        return str(answer["choices"][0]["message"]["content"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as exc:
        raise Unavailable(f"The endpoint of the summary gave no answer that can be used: {exc!r}") from exc
