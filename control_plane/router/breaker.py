"""A circuit breaker per target: stop asking what keeps failing, ask again carefully. The clock is an argument."""

from dataclasses import dataclass

THRESHOLD = 5  # failures in a row that open it
FIRST_S = 0.25  # how long it stays open the first time; doubles with each failed probe
LONGEST_S = 2.0


@dataclass(slots=True)
class Breaker:
    """Closed while `failures` < THRESHOLD; then open until `open_until`; then one probe decides, and the next ..."""

    failures: int = 0
    open_until: float = 0.0
    open_s: float = FIRST_S
    probing: bool = False

    def allows(self, now: float) -> bool:
        """Whether to call the target now. True of an open breaker makes the caller its probe, which others wait for."""
        if self.failures < THRESHOLD:
            return True
        if now < self.open_until:
            return False
        self.probing, self.open_until = True, now + self.open_s  # a probe that never reports is followed by another
        return True

    def succeeded(self) -> None:
        """A call was answered, whatever the answer."""
        if self.failures:
            self.failures, self.open_s, self.probing = 0, FIRST_S, False

    def failed(self, now: float) -> None:
        """A call was lost, late, or answered that the server itself is broken."""
        self.failures += 1
        if self.failures == THRESHOLD:
            self.open_until = now + self.open_s
        elif self.probing:  # a call from before the opening that fails late says nothing new
            self.open_s, self.probing = min(2 * self.open_s, LONGEST_S), False
            self.open_until = now + self.open_s
