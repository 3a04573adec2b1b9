"""When a model in Production is to be looked at again by the people who answer for it."""

from datetime import datetime, timedelta
from typing import Final, Literal

Materiality = Literal["low", "medium", "high"]
# The more a wrong answer costs, the more often. No regulation names the intervals: SR 26-2, which replaced SR 11-7,
# and PRA SS1/23 ask for reviews as often as a model's risk demands.
INTERVALS: Final[dict[Materiality, timedelta]] = {
    "high": timedelta(days=182),
    "medium": timedelta(days=365),
    "low": timedelta(days=730),
}


def due(materiality: Materiality, validated_at: datetime) -> datetime:
    """`validated_at`: when the version was last validated as a whole, at its training where nobody did it since."""
    return validated_at + INTERVALS[materiality]
