"""What the truth of an answer is: the newest outcome reported of it, or what the lack of one means. Pure."""

from datetime import datetime, timedelta

from control_plane.domain.business import number
from control_plane.domain.model_config import Label, ModelConfig, Problem

Truth = float | bool | str  # in the terms of the problem: regression, binary, multiclass


def matured(label: Label, now: datetime) -> datetime:
    """Answers given before it have had the time their label takes; younger ones are not judged."""
    return now - timedelta(seconds=label.delay_s)


def known(config: ModelConfig, reported: object, *, said: bool | None) -> Truth | None:
    """The truth of an answer that has matured; None where it cannot be told, which is left out and never guessed.

    `reported`: the newest outcome, None where there is none. `said`: what a binary answer decided, None if unknown.
    """
    if reported is None:
        # A decision that prevents what it warns of leaves no outcome either way.
        prevented = config.label.depends_on_decision and said is not False
        return False if absence_tells(config) and not prevented else None
    match config.problem:
        case Problem.BINARY:
            return means_yes(reported, config.target.positive if config.target else None)
        case Problem.MULTICLASS:
            return str(reported)
        case Problem.REGRESSION | Problem.OPAQUE:
            return number(reported)


def absence_tells(config: ModelConfig) -> bool:
    """Whether an answer without any outcome may have a truth."""
    return config.problem is Problem.BINARY and config.label.absence_means == "negative"


def decided(config: ModelConfig, word: str | None, above: bool | None) -> bool | None:
    """What a binary answer said: its word of model.yaml, else whether its probability reached the threshold."""
    words = {config.decision.positive: True, config.decision.negative: False}
    return words.get(word or "", above)


def means_yes(truth: object, positive: str | int | bool | None) -> bool | None:
    """Whether a reported truth of a binary problem is the positive class; None when it cannot be told.

    True and 1 are yes, False and 0 are no. Text is compared with the class named `positive` in model.yaml; other
    text is the other class, unless the positive class has no name of its own.
    """
    if isinstance(truth, bool):
        return truth
    if isinstance(truth, int | float):
        named = isinstance(positive, int | float) and not isinstance(positive, bool) and positive not in {0, 1}
        if named:
            return truth == positive
        return bool(truth) if truth in {0, 1} else None
    if not isinstance(truth, str):
        return None
    if isinstance(positive, str):
        return truth == positive
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(truth.lower())
