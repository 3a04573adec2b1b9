"""A report in sentences: what a person reads first. Pure."""

from control_plane.domain.replay.report import Change, Interval, Report


def summary(found: Report) -> tuple[str, ...]:
    """The most important first."""
    if not found.rows:
        return (f"No row could be compared: {_counts(found.left_out) or 'nothing was logged'}.",)
    lines = [found.consistency.why]
    if found.flips is not None:
        lines.append(f"{found.flips.count:,} of {found.flips.rows:,} decisions differ: {percent(found.flips.rate)}.")
        ways = [
            f"{one.before} -> {one.after} {one.count:,} ({percent(one.rate)})" for one in found.flips.directions[:4]
        ]
        if ways:
            lines.append(f"Of these: {'; '.join(ways)}.")
    if found.shift is not None:
        moved = interval(found.shift.difference)
        lines.append(f"Scores move by {moved} in the mean, PSI {found.shift.psi:.3f}.")
    lines += [line for change in found.metrics if (line := told(change))]
    refused = found.refused.get("candidate", 0)
    if refused:
        first = found.refusals[0] if found.refusals else None
        why = f", mostly {first.feature or 'the row'}: {first.reason}" if first else ""
        lines.append(f"The candidate refuses {refused:,} rows{why}.")
    if found.features:
        changed = ", ".join(f"{one.name} ({one.change})" for one in found.features[:10])
        lines.append(f"Features: {changed}.")
    return tuple(lines)


def told(change: Change) -> str:
    """One metric in a sentence; "" where there is nothing to say."""
    if change.bounds is not None:
        low, high = change.bounds
        return f"{change.name} changes by something between {low:+.4f} and {high:+.4f}: {change.why}"
    if change.difference is None:
        return f"{change.name} cannot be compared: {change.why}" if change.why else ""
    word = _word(change)
    return f"{change.name} {change.baseline:.4f} -> {change.candidate:.4f}: {interval(change.difference)}, {word}."


def interval(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:+.4f} (no interval)"
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def percent(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.2%} (no interval)"
    return f"{found.value:.2%} [{found.low:.2%}, {found.high:.2%}]"


def _word(change: Change) -> str:
    found = change.difference
    if found is None or found.low is None or found.high is None:
        return "how sure is not known"
    if found.low <= 0 <= found.high:
        return "no difference can be told"
    return "better" if (found.low > 0) is change.higher_is_better else "worse"


def _counts(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {why}" for why, count in left_out.items())
