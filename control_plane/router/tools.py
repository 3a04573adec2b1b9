"""What the predictions of one worker share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from control_plane.adapters.otel import Tracer
from control_plane.router.metrics import Meter
from control_plane.router.spool import Spool


@dataclass(frozen=True, slots=True)
class Tools:
    spool: Spool
    fresh_id: Callable[[], bytes]
    meter: Meter
    loop: asyncio.AbstractEventLoop
    tracer: Tracer | None = None
