"""When a model in Production is to be looked at again by the people who answer for it."""

from datetime import datetime, timedelta
from typing import Final, Literal

Materiality = Literal["low", "medium", "high"]
# The more a wrong answer costs, the more often. No regulation names the intervals: SR 11-7 asks for periodic reviews,
# at least once a year where a model matters.
INTERVALS: Final[dict[Materiality, timedelta]] = {
    "high": timedelta(days=182),
    "medium": timedelta(days=365),
    "low": timedelta(days=730),
}


def due(materiality: Materiality, validated_at: datetime) -> datetime:
    """`validated_at`: when the version was last validated as a whole, at its training where nobody did it since."""
    return validated_at + INTERVALS[materiality]
