"""What a training says while it runs: one line per step, for people or as JSON for whoever started it."""

import json
import sys
from collections.abc import Callable

Say = Callable[..., None]  # say(event, detail, fraction, **members)


def to_stdout(*, as_json: bool) -> Say:
    """`fraction`: how much of the work is done, 0..1, never falling. Further members go into the JSON only."""

    def say(event: str, detail: str, fraction: float, **members: object) -> None:
        if as_json:
            line = json.dumps({"event": event, "detail": detail, "fraction": round(fraction, 3), **members})
        else:
            line = f"{fraction:4.0%}  {detail}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return say


def silent(event: str, detail: str, fraction: float, **members: object) -> None:
    """Says nothing."""
