"""How a reported truth is read. Pure."""


def means_yes(truth: float | bool | str, positive: str | int | bool | None) -> bool | None:
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
        return {1.0: True, 0.0: False}.get(float(truth))
    if isinstance(positive, str):
        return truth == positive
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(truth.lower())
