"""A version promoted and rolled back again and again under steady traffic."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.stack import eventually
from tests.support.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Flips:
    back_s: list[float]  # from the start of each rollback command to the first answer of the old version
    requests_per_s: float  # answered while it went on


def flip(traffic: Traffic, mlcp: Callable[..., object], first: str, second: str, *, times: int = 10) -> Flips:
    """`times` promotions of `second` over `first` and rollbacks; AssertionError for an answer nobody had routed.

    `mlcp(*argv)` runs a command and raises when it does not exit with 0. `traffic` goes on before and after.
    """
    settled, expected, back_s = time.monotonic(), first, list[float]()
    model = traffic.model
    for _ in range(times):
        for argv, after in (
            (("promote", model, second, "--reason", "better", "--wait"), second),
            (("rollback", model, "--reason", "practice", "--wait"), first),
        ):
            began = time.monotonic()
            wrong = traffic.versions(sent_from=settled, sent_to=began) - {expected}
            assert not wrong, f"answers of {wrong} while only {expected} was routed"
            mlcp(*argv)
            settled, expected = time.monotonic(), after
            if after == first:
                answered = eventually(
                    lambda began=began: [a.got for a in traffic.answers if a.sent > began and a.version == first],
                    "an answer of the old version",
                    every=0.02,
                )
                back_s.append(round(min(answered) - began, 3))
            time.sleep(0.3)
    wrong = traffic.versions(sent_from=settled) - {first}
    assert not wrong, f"answers of {wrong} after the last rollback"
    seconds = traffic.answers[-1].sent - traffic.answers[0].sent
    return Flips(back_s, round(len(traffic.answers) / seconds, 1))
