"""How much one worker takes on at once of one model: less as soon as answers get late, more again bit by bit.

Without it a model that is asked for more than it can do answers everybody too late: requests wait until their deadline
and are computed for nobody. With it the answers that are given stay in time, and the others are refused at once.
"""

from dataclasses import dataclass
from typing import Final

LATE_SHARE: Final = 0.1  # of the predictions of a look: without an answer by their deadline
LATE_LEAST: Final = 3  # a single one may have any reason
NEAR: Final = 0.5  # of the deadline: answers that take so long in the mean ...
QUEUED: Final = 2.0  # ... and so many times as long as without a queue have waited for their turn
LEAST: Final = 8
_FORGET: Final = 1.002  # per look: what an answer takes without a queue is learnt anew within minutes
_DOWN: Final = 0.7
_UP: Final = 0.1
_UP_AT_LEAST: Final = 4


@dataclass(slots=True)
class Load:
    """Predictions of one model under way in this worker, and how many there may be."""

    limit: int
    in_flight: int = 0
    late: int = 0  # predictions without an answer by their deadline since the last look
    answered: int = 0  # as of the last look
    seconds: float = 0.0
    unqueued: float = float("inf")  # seconds: the shortest mean of a look
    behind: bool = False  # the last look found too much under way

    def adapt(self, answered: int, seconds: float, *, deadline_s: float, most: int) -> None:
        """Look at the time since the last look: by now `answered` predictions have taken `seconds` together.

        Fewer are taken on when answers are late or about to be at two looks in a row, for one may have met a moment in
        which the whole machine stood still; more, up to `most`, when they are not. Additive increase, multiplicative
        decrease, as congestion control does it.
        """
        count, took = answered - self.answered, seconds - self.seconds
        self.answered, self.seconds = answered, seconds
        late, self.late = self.late, 0
        mean = took / count if count else 0.0
        if count:
            self.unqueued = min(self.unqueued * _FORGET, mean)
        before, self.behind = self.behind, self._overloaded(late, count, mean, deadline_s)
        if not self.behind:
            self.limit += max(_UP_AT_LEAST, int(self.limit * _UP))
        elif before:
            self.limit = max(LEAST, int(_DOWN * min(self.limit, self.in_flight)))
        self.limit = min(self.limit, most)

    def _overloaded(self, late: int, count: int, mean: float, deadline_s: float) -> bool:
        if late >= LATE_LEAST and late > LATE_SHARE * (count + late):
            return True
        return mean > NEAR * deadline_s and mean > QUEUED * self.unqueued
