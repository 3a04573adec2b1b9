"""Whether a window drifted: one look at two profiles, decided against a practical threshold, with a sentence.

H0 of a feature is "its distance from the reference is at most the threshold". The limit adds what sampling alone can
produce: with the population stability index (PSI) D, threshold t, m reference rows, n window rows and k cells,

    FAIL  if  sqrt(D) > sqrt(t) + radius,    radius^2 = (1/m + 1/n) * chi2(k - 1; 1 - alpha / features)

since sqrt(PSI) is, close to the reference, the length of the difference of the two distributions (so the triangle
inequality holds), and its square under equal distributions is (1/m + 1/n) times a chi-square variable. So a large
sample does not make a tiny difference an alarm, and a small one does not make noise an alarm.
Source: Yurdakul & Naranjo, "Statistical properties of the population stability index" (2020), sec. 3.

Valid for one look at rows that are independent, or `rows_per_unit` of them together. Monitoring that looks every hour
uses `evidence.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np
from scipy import special

from control_plane.domain.drift import scores
from control_plane.domain.drift.profiles import Categorical, Feature, Numeric, Profile, Text
from control_plane.domain.rollouts import Verdict

_TELLABLE = 10  # rows of a value that is named


@dataclass(frozen=True, slots=True)
class Policy:
    """`psi`: practical threshold per feature. `alpha`: false alarms per look over all features together, if nothing
    differs by more than the threshold. `least_rows`: below it nothing is said. Shares are of the window's rows.
    """

    psi: float = 0.1
    alpha: float = 0.01
    least_rows: int = 50
    rows_per_unit: float = 1.0  # design effect: rows of one customer count as one together
    null_rise: float = 0.05  # a null share this much above the reference's is a finding
    outside_share: float = 0.01  # of values outside the declared range
    unseen_rise: float = 0.05  # above what the reference itself makes expect

    def __post_init__(self) -> None:
        if not (self.psi > 0 and 0 < self.alpha < 1 and self.rows_per_unit >= 1):
            raise ValueError(f"psi must be > 0, alpha within 0..1, rows_per_unit >= 1: {self}")


class Issue(StrEnum):
    """What is wrong with the data itself, by name."""

    MISSING = "missing"  # no row has the feature
    ALL_NULLS = "all_nulls"
    NEW_TYPE = "new_type"  # most values are of another type
    CONSTANT = "constant"  # one value, where the reference had many
    TOO_FEW_ROWS = "too_few_rows"
    NO_REFERENCE = "no_reference"
    NULLS = "nulls"  # more nulls than in the reference
    MISTYPED = "mistyped"  # some values are of another type
    OUT_OF_RANGE = "out_of_range"  # of what model.yaml declares
    UNSEEN = "unseen"  # values the reference never had
    HUGE = "huge"  # infinite or beyond 1e100


@dataclass(frozen=True, slots=True)
class Finding:
    issue: Issue
    why: str


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """The answer for one feature. `psi`, `limit`, `js` are None where they could not be computed: never 0 for that."""

    name: str
    verdict: Verdict
    why: str
    rows: int
    psi: float | None = None
    limit: float | None = None  # psi above it is a FAIL
    js: float | None = None
    ks: float | None = None  # numbers only
    findings: tuple[Finding, ...] = ()
    wasserstein: float | None = None  # numbers only, in the feature's unit
    cramers_v: float | None = None  # categories only: effect size of chi-square, 0..1


@dataclass(frozen=True, slots=True)
class Report:
    """FAIL if any feature drifted, else INCONCLUSIVE if any could not be judged, else PASS. Largest PSI first."""

    verdict: Verdict
    why: str
    features: tuple[FeatureDrift, ...]
    prediction: FeatureDrift | None
    label: FeatureDrift | None

    @property
    def largest_psi(self) -> float | None:
        """What the gauge shows; None if no feature could be scored."""
        return max((f.psi for f in self.features if f.psi is not None), default=None)


def compare(reference: Profile, current: Profile, policy: Policy) -> Report:
    """One look at a window folded on this reference. Never raises on what a window holds.

    Prediction and label are judged beside the features, as feature number 1 of 1: their alarms mean something else.
    """
    tests = len(reference.features)
    judged = [judge(n, f, current.features.get(n), policy, tests=tests) for n, f in reference.features.items()]
    judged.sort(key=lambda drift: (-1.0 if drift.psi is None else drift.psi, drift.name), reverse=True)
    prediction = _optional("prediction", reference.prediction, current.prediction, policy)
    label = _optional("label", reference.label, current.label, policy)
    verdict, why = _overall(judged)
    return Report(verdict, why, tuple(judged), prediction, label)


def judge(name: str, reference: Feature, current: Feature | None, policy: Policy, *, tests: int) -> FeatureDrift:
    """One feature, as one of `tests` looked at together. `current` None: the window has no such feature."""
    if current is None:
        return _undecided(name, 0, Finding(Issue.MISSING, f"{name} is not in the window."))
    rows = current.rows
    if blocking := _blocking(name, reference, current, policy):
        return _undecided(name, rows, blocking, *_warnings(name, reference, current, policy))
    findings = _warnings(name, reference, current, policy)
    before, after = cell_counts(reference), cell_counts(current)
    p, q = _comparable(reference, before, after)
    psi = scores.psi(p, q, smoothing=0.0)
    js = scores.jensen_shannon(p, q)
    ks = scores.ks_binned(before[:-1], after[:-1]).value if isinstance(current, Numeric) else None
    cells = int(np.count_nonzero((before > 0) | (after > 0)))
    noise = float(special.chdtri(max(1, cells - 1), policy.alpha / max(1, tests)))
    n = _independent(current, after) / policy.rows_per_unit
    m = _independent(reference, before)
    limit = (math.sqrt(policy.psi) + math.sqrt(noise * (1 / m + 1 / n))) ** 2
    moved, effect = _wasserstein(reference, current), _cramers_v(current, before, after)
    scored = FeatureDrift(name, Verdict.PASS, "", rows, psi, limit, js, ks, findings, moved, effect)
    if psi > limit:
        why = f"{name} drifted: PSI {psi:.3f} > {limit:.3f} ({_moved(reference, p, q)})."
        return _decided(scored, Verdict.FAIL, why)
    if noise * (1 / m + 1 / n) > policy.psi:
        spare = policy.psi / noise - 1 / m
        if spare <= 0:
            short = Finding(
                Issue.TOO_FEW_ROWS, f"{name}: the reference has {m:.0f} rows, needs {noise / policy.psi:.0f}."
            )
        else:
            needed = math.ceil(policy.rows_per_unit / spare)
            short = Finding(Issue.TOO_FEW_ROWS, f"{name}: {rows} rows, needs {needed} to tell PSI {policy.psi:g}.")
        return _decided(scored, Verdict.INCONCLUSIVE, short.why, short)
    return _decided(scored, Verdict.PASS, f"{name} did not drift: PSI {psi:.3f} <= {limit:.3f}.")


def cell_counts(feature: Feature) -> scores.Floats:
    """Counts per cell with the rows that have no usable value as the last cell."""
    counts = feature.words.counts if isinstance(feature, Text) else feature.counts
    return np.array([*counts, feature.absent.total], dtype=np.float64)


def cell_names(feature: Feature) -> list[str]:
    """A short name per cell of `cell_counts`. No value is told that only a few rows have: it may be somebody's own."""
    match feature:
        case Numeric():
            if not feature.edges:
                return ["any value", "absent"]
            edges = ["lowest", *(f"{edge:.4g}" for edge in feature.edges[1:-1]), "highest"]
            inner = [f"{low} .. {high}" for low, high in pairwise(edges)] if len(feature.edges) > 1 else []
            return ["below the lowest", *inner, "above the highest", "absent"]
        case Categorical():
            named = enumerate(feature.categories.items())
            return [
                *(repr(value) if count >= _TELLABLE else f"seldom {i}" for i, (value, count) in named),
                *(f"rare {i}" for i in range(len(feature.tail))),
                "unseen",
                "absent",
            ]
        case Text():
            return [*cell_names(feature.words)[:-1], "absent"]


def histogram(reference: Feature, current: Feature) -> dict[str, list[str] | list[float]] | None:
    """Names of the cells and both sides' shares, 6 decimals; None where either side has no rows."""
    before, after = cell_counts(reference), cell_counts(current)
    if not (before.sum() and after.sum()):
        return None
    shares = ([round(float(x), 6) for x in side / side.sum()] for side in (before, after))
    return {"cells": cell_names(reference), **dict(zip(("reference", "current"), shares, strict=True))}


def _comparable(reference: Feature, before: scores.Floats, after: scores.Floats) -> tuple[scores.Floats, scores.Floats]:
    """Shares of both sides, positive in every cell that either side fills; cells empty on both sides are left out (0).

    A cell the reference left empty gets half a row, but one row beyond its smallest or largest value (where the next
    value falls with probability 1 / (m + 1)), and for unseen categories as many as it had seen only once (Good 1953,
    eq. 9). A cell the window left empty gets what the reference makes expect, at most half a row.
    """
    usual = np.full(len(before), 0.5)
    category = reference.words if isinstance(reference, Text) else reference
    if isinstance(category, Categorical):
        usual[-2] += category.once
    else:
        usual[[0, -2]] = 1.0
    filled = (before > 0) | (after > 0)
    p = np.where(filled, np.where(before > 0, before, usual), 0.0)
    p /= p.sum()
    q = np.where(filled & (after == 0), np.minimum(0.5, after.sum() * p), after)
    return p, q / q.sum()


def _blocking(name: str, reference: Feature, current: Feature, policy: Policy) -> Finding | None:
    rows, absent = current.rows, current.absent
    known = reference.rows - reference.absent.total
    usable = rows - absent.total
    if rows == 0:
        return Finding(Issue.TOO_FEW_ROWS, f"{name}: the window has no rows.")
    if known <= 0 or _is_bare(reference):
        return Finding(Issue.NO_REFERENCE, f"{name}: the reference has no value to compare with.")
    if absent.missing == rows:
        return Finding(Issue.MISSING, f"{name} is missing from all {rows} rows.")
    if absent.mistyped > rows / 2:
        return Finding(Issue.NEW_TYPE, f"{name}: {absent.mistyped} of {rows} values are not of type {current.type}.")
    if usable == 0:
        return Finding(Issue.ALL_NULLS, f"{name} is null in all {rows} rows.")
    if rows / policy.rows_per_unit < policy.least_rows:
        return Finding(
            Issue.TOO_FEW_ROWS, f"{name}: {rows} rows, needs {policy.least_rows * policy.rows_per_unit:.0f}."
        )
    if _is_bare(current):
        return Finding(Issue.CONSTANT, f"{name} has no word in any of {usable} texts; the reference has many.")
    counts = cell_counts(reference)[:-1]
    usual = float(counts.max() / counts.sum()) if counts.sum() else 1.0
    if _constant(current) and usual < 1 and usable * math.log(usual) < math.log(1e-6):
        return Finding(Issue.CONSTANT, f"{name} has one value in all {usable} rows; the reference has many.")
    return None


def _is_bare(feature: Feature) -> bool:
    """Values, and none that can be compared: texts without a word, a reference of nothing but huge numbers."""
    if isinstance(feature, Text):
        return not sum(feature.words.counts)
    return isinstance(feature, Numeric) and not feature.edges


def _warnings(name: str, reference: Feature, current: Feature, policy: Policy) -> tuple[Finding, ...]:
    rows, absent = max(1, current.rows), current.absent
    found: list[Finding] = []
    before, after = reference.absent.nulls / max(1, reference.rows), absent.nulls / rows
    if after - before > policy.null_rise:
        found.append(Finding(Issue.NULLS, f"{name}: {after:.1%} nulls, {before:.1%} in the reference."))
    if absent.mistyped:
        found.append(Finding(Issue.MISTYPED, f"{name}: {absent.mistyped} values are not of type {current.type}."))
    if isinstance(current, Numeric):
        if current.huge:
            found.append(Finding(Issue.HUGE, f"{name}: {current.huge} values are infinite or beyond 1e100."))
        if current.range is not None and current.outside / rows > policy.outside_share:
            low, high = current.range
            found.append(Finding(Issue.OUT_OF_RANGE, f"{name}: {current.outside} values outside {low:g} .. {high:g}."))
    category, grown = (f.words if isinstance(f, Text) else f for f in (current, reference))
    if isinstance(category, Categorical) and isinstance(grown, Categorical):
        total = sum(category.counts)
        expected = grown.once / max(1, sum(grown.counts))
        if total and category.unseen / total - expected > policy.unseen_rise:
            share = category.unseen / total
            found.append(
                Finding(Issue.UNSEEN, f"{name}: {share:.1%} of the values were never seen, {expected:.1%} usual.")
            )
    return tuple(found)


def _constant(feature: Feature) -> bool:
    if isinstance(feature, Numeric):
        return feature.moments.count > 0 and feature.moments.low == feature.moments.high and not feature.huge
    if isinstance(feature, Text):
        return False  # a single text is visible in its words
    registers = sum(1 for register in feature.distinct if register)
    return registers == 1


def _independent(feature: Feature, counts: scores.Floats) -> float:
    """Rows that carry evidence of their own: the words of one text count as one together."""
    return max(1.0, min(float(feature.rows), float(counts.sum())))


def _moved(feature: Feature, p: scores.Floats, q: scores.Floats) -> str:
    most = int(np.argmax(np.abs(special.rel_entr(p, q) + special.rel_entr(q, p))))
    return f"{cell_names(feature)[most]}: {p[most]:.1%} -> {q[most]:.1%}"


def _wasserstein(reference: Feature, current: Feature) -> float | None:
    """Between the values of both sides; None where the grid cannot say (no edges, huge values)."""
    if not (isinstance(reference, Numeric) and isinstance(current, Numeric)) or current.huge or reference.huge:
        return None
    low = min(reference.moments.low, current.moments.low)
    high = max(reference.moments.high, current.moments.high)
    if not (math.isfinite(low) and math.isfinite(high)):  # a reference by hand may have no moments
        return None
    return scores.wasserstein_binned(reference.counts, current.counts, edges=current.edges, low=low, high=high)


def _cramers_v(current: Feature, before: scores.Floats, after: scores.Floats) -> float | None:
    """None where too few cells are filled well enough for chi-square."""
    if not isinstance(current, Categorical):
        return None
    try:
        return scores.chi_square(*scores.merge_rare(before, after)).cramers_v
    except ValueError:
        return None


def _undecided(name: str, rows: int, *findings: Finding) -> FeatureDrift:
    return FeatureDrift(name, Verdict.INCONCLUSIVE, findings[0].why, rows, findings=findings)


def _decided(drift: FeatureDrift, verdict: Verdict, why: str, *more: Finding) -> FeatureDrift:
    return replace(drift, verdict=verdict, why=why, findings=(*drift.findings, *more))


def _optional(name: str, reference: Feature | None, current: Feature | None, policy: Policy) -> FeatureDrift | None:
    return None if reference is None else judge(name, reference, current, policy, tests=1)


def _overall(judged: list[FeatureDrift]) -> tuple[Verdict, str]:
    by: Mapping[Verdict, list[FeatureDrift]] = {v: [d for d in judged if d.verdict is v] for v in Verdict}
    if not judged:
        return Verdict.INCONCLUSIVE, "The reference has no features."
    for verdict, said in ((Verdict.FAIL, "drifted"), (Verdict.INCONCLUSIVE, "could not be judged")):
        if found := by[verdict]:
            return verdict, f"{len(found)} of {len(judged)} features {said}. {found[0].why}"
    return Verdict.PASS, f"None of {len(judged)} features drifted."
