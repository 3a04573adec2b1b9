import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.drift import decide, fold
from control_plane.domain.drift.decide import FeatureDrift, Issue, Policy
from control_plane.domain.drift.fold import Cells
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.model_config import FeatureType
from control_plane.domain.rollouts import Verdict

POLICY = Policy(psi=0.05, alpha=0.01)
TYPES = {"amount": FeatureType.NUMBER, "country": FeatureType.CATEGORY, "memo": FeatureType.TEXT}
RNG = np.random.default_rng(11)


def rows(n: int, *, shift: float = 0.0, countries: Sequence[str] = ("DE", "FR", "IT")) -> dict[str, fold.Column]:
    return {
        "amount": RNG.normal(shift, 1, n),
        "country": RNG.choice(countries, n).tolist(),
        "memo": [f"order {i}" for i in RNG.integers(0, 5, n)],
    }


REFERENCE = fold.reference(
    rows(20_000),
    TYPES,
    cells=Cells(),
    ranges={"amount": (-5.0, 5.0)},
    prediction=(FeatureType.NUMBER, RNG.random(20_000)),
)


def look(columns: dict[str, fold.Column], policy: Policy = POLICY) -> decide.Report:
    return decide.compare(REFERENCE, fold.fold(REFERENCE, columns), policy)


def of(report: decide.Report, name: str) -> FeatureDrift:
    return next(f for f in report.features if f.name == name)


def issues(drift: FeatureDrift) -> set[Issue]:
    return {finding.issue for finding in drift.findings}


def test_the_same_distribution_passes_and_a_shift_fails_by_name() -> None:
    same, shifted = look(rows(5_000)), look(rows(5_000, shift=0.8))
    assert {f.verdict for f in same.features} == {Verdict.PASS}
    assert shifted.verdict is Verdict.FAIL
    assert shifted.features[0].name == "amount"
    assert "amount drifted: PSI" in shifted.why
    assert "->" in shifted.why
    assert of(shifted, "country").verdict is Verdict.PASS
    assert shifted.largest_psi == of(shifted, "amount").psi


def test_a_difference_below_the_practical_threshold_is_no_drift_however_many_rows_there_are() -> None:
    shift = 0.8 * math.sqrt(POLICY.psi)  # a shift of d sigma is a PSI of about d^2
    big = fold.fold(REFERENCE, {"amount": RNG.normal(shift, 1, 400_000)})
    assert of(decide.compare(REFERENCE, big, POLICY), "amount").verdict is Verdict.PASS
    beyond = fold.fold(REFERENCE, {"amount": RNG.normal(2 * math.sqrt(POLICY.psi), 1, 400_000)})
    assert of(decide.compare(REFERENCE, beyond, POLICY), "amount").verdict is Verdict.FAIL


def test_every_kind_of_bad_input_is_named_and_inconclusive() -> None:
    n = 2_000
    good = rows(n)
    cases: dict[Issue, dict[str, fold.Column]] = {
        Issue.MISSING: {"country": good["country"]},
        Issue.ALL_NULLS: good | {"amount": np.full(n, np.nan)},
        Issue.NEW_TYPE: good | {"amount": ["12.5"] * n},
        Issue.CONSTANT: good | {"amount": np.full(n, 0.3)},
        Issue.TOO_FEW_ROWS: {name: column[:10] for name, column in good.items()},
    }
    for issue, columns in cases.items():
        drift = of(look(columns), "amount")
        assert (drift.verdict, drift.psi) == (Verdict.INCONCLUSIVE, None)
        assert issue in issues(drift)
        assert drift.why.startswith("amount")
    constant = of(look(good | {"country": ["DE"] * n}), "country")
    assert issues(constant) == {Issue.CONSTANT}
    assert decide.judge("gone", REFERENCE.features["amount"], None, POLICY, tests=1).verdict is Verdict.INCONCLUSIVE


def test_texts_without_a_word_are_named_and_inconclusive() -> None:
    found = of(look({**rows(5_000), "memo": ["", "...", "!"] * 1_666 + ["", "?"]}), "memo")
    assert (found.verdict, found.psi, found.findings[0].issue) == (Verdict.INCONCLUSIVE, None, Issue.CONSTANT)
    wordless = fold.reference({"memo": [""] * 900}, {"memo": FeatureType.TEXT}, cells=Cells())
    (found,) = decide.compare(wordless, fold.fold(wordless, {"memo": ["a"] * 900}), POLICY).features
    assert (found.verdict, found.findings[0].issue) == (Verdict.INCONCLUSIVE, Issue.NO_REFERENCE)


def test_words_where_there_was_true_and_false_are_a_new_type() -> None:
    flags = fold.reference({"flag": [True, False] * 900}, {"flag": FeatureType.BOOLEAN}, cells=Cells())
    (found,) = decide.compare(flags, fold.fold(flags, {"flag": ["yes", "no"] * 900}), POLICY).features
    assert (found.verdict, found.findings[0].issue) == (Verdict.INCONCLUSIVE, Issue.NEW_TYPE)


def test_a_value_that_everybody_had_and_nobody_has_is_told_by_name() -> None:
    gone = of(look({**rows(9_000), "country": ["FR", "IT"] * 4_500}), "country")
    assert "'DE': 33" in gone.why
    assert gone.verdict is Verdict.FAIL


def test_no_value_of_a_few_rows_is_told_to_anybody() -> None:
    columns: dict[str, fold.Column] = {
        "mail": [f"customer{i}@example.org" for i in range(2_000)],
        "salary": [*RNG.normal(3_000, 300, 1_999), 987_654.0],
        "country": ["DE", "FR"] * 1_000,
    }
    kinds = {"mail": FeatureType.CATEGORY, "salary": FeatureType.NUMBER, "country": FeatureType.CATEGORY}
    made = fold.reference(columns, kinds, cells=Cells())
    told = str([decide.histogram(feature, feature) for feature in made.features.values()])
    assert "example.org" not in told
    assert "9.877e+05" not in told
    assert "'DE'" in told


def test_an_empty_window_and_an_empty_reference_are_inconclusive() -> None:
    empty = look({})
    assert (empty.verdict, empty.largest_psi) == (Verdict.INCONCLUSIVE, None)
    nothing = fold.reference({"x": [None, None]}, {"x": FeatureType.NUMBER}, cells=Cells())
    report = decide.compare(nothing, fold.fold(nothing, {"x": [1.0] * 100}), POLICY)
    assert issues(report.features[0]) == {Issue.NO_REFERENCE}
    assert decide.compare(Profile(0, {}), Profile(0, {}), POLICY).verdict is Verdict.INCONCLUSIVE


def test_too_few_rows_says_how_many_are_needed_and_that_many_suffice() -> None:
    short = of(look(rows(100)), "amount")
    assert short.verdict is Verdict.INCONCLUSIVE
    assert issues(short) == {Issue.TOO_FEW_ROWS}
    needed = int(short.why.split("needs ")[1].split(" ")[0])
    assert of(look(rows(needed + 1)), "amount").verdict is Verdict.PASS


def test_a_constant_reference_passes_while_it_stays_constant_and_fails_when_it_moves() -> None:
    flat = fold.reference({"x": np.zeros(5_000)}, {"x": FeatureType.NUMBER}, cells=Cells())

    def verdict(values: np.ndarray) -> Verdict:
        return decide.compare(flat, fold.fold(flat, {"x": values}), POLICY).verdict

    assert verdict(np.zeros(2_000)) is Verdict.PASS
    assert verdict(RNG.normal(size=2_000)) is Verdict.FAIL


def test_a_rare_flag_that_does_not_show_up_is_not_called_constant() -> None:
    flags = [True] * 20 + [False] * 19_980
    grid = fold.reference({"x": flags}, {"x": FeatureType.BOOLEAN}, cells=Cells())
    assert decide.compare(grid, fold.fold(grid, {"x": [False] * 1_000}), POLICY).verdict is Verdict.PASS


def test_warnings_are_named_beside_the_verdict() -> None:
    n = 4_000
    columns = rows(n)
    amounts = np.array(columns["amount"], dtype=object)
    amounts[:400] = None
    amounts[400:410] = "x"
    amounts[410:420] = math.inf
    amounts[420:480] = 9.0
    drift = of(look(columns | {"amount": amounts}), "amount")
    assert issues(drift) == {Issue.NULLS, Issue.MISTYPED, Issue.HUGE, Issue.OUT_OF_RANGE}
    unseen = of(look(rows(n, countries=("DE", "FR", "IT", "PL"))), "country")
    assert issues(unseen) == {Issue.UNSEEN}
    assert unseen.verdict is Verdict.FAIL


def test_ten_thousand_levels_do_not_alarm_and_a_shift_among_them_does() -> None:
    levels = np.array([f"merchant-{i}" for i in range(10_000)])
    share = 1 / (np.arange(10_000) + 10.0)
    share /= share.sum()
    grid = fold.reference(
        {"m": RNG.choice(levels, 60_000, p=share).tolist()}, {"m": FeatureType.CATEGORY}, cells=Cells()
    )

    def verdict(weights: np.ndarray) -> FeatureDrift:
        drawn = RNG.choice(levels, 20_000, p=weights / weights.sum()).tolist()
        return decide.compare(grid, fold.fold(grid, {"m": drawn}), POLICY).features[0]

    assert (calm := verdict(share)).verdict is Verdict.PASS
    assert not calm.findings  # many values are new in 20,000 rows, as many as the reference makes expect
    assert verdict(share * np.where(np.arange(10_000) < 30, 3, 1)).verdict is Verdict.FAIL


def test_prediction_and_text_are_judged_too() -> None:
    columns = rows(4_000)
    folded = fold.fold(REFERENCE, columns | {"memo": ["refund now"] * 4_000}, prediction=RNG.random(4_000) ** 2)
    report = decide.compare(REFERENCE, folded, POLICY)
    assert report.prediction is not None
    assert report.prediction.verdict is Verdict.FAIL
    assert of(report, "memo").verdict is Verdict.FAIL
    unread = look(columns)
    assert unread.prediction is not None
    assert unread.prediction.verdict is Verdict.INCONCLUSIVE


@given(st.integers(0, 400), st.sampled_from([None, "x", True, 0.0, 1e300, math.nan, "DE", [1]]))
def test_no_window_makes_it_raise_or_score_zero(n: int, value: object) -> None:
    report = look({name: [value] * n for name in TYPES})
    for drift in report.features:
        assert drift.why
        assert (drift.psi is None) == (drift.limit is None)
        assert drift.verdict is not Verdict.PASS or drift.psi is not None


@pytest.mark.parametrize("bad", [{"psi": 0.0}, {"alpha": 1.0}, {"rows_per_unit": 0.5}])
def test_a_policy_that_means_nothing_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="psi must"):
        Policy(**bad)  # type: ignore[arg-type]


def _false_alarms(runs: int, *, cluster: int, policy: Policy, seed: int) -> int:
    rng = np.random.default_rng(seed)
    types = {f"x{i}": FeatureType.NUMBER for i in range(5)} | {"c": FeatureType.CATEGORY}
    n, alarms = 3_000, 0

    def draw(units: int, per: int) -> dict[str, fold.Column]:
        columns: dict[str, fold.Column] = {f"x{i}": np.repeat(rng.normal(size=units), per) for i in range(5)}
        return columns | {"c": np.repeat(rng.integers(0, 40, units), per).astype(str).tolist()}

    for _ in range(runs):
        grid = fold.reference(draw(3_000, 1), types, cells=Cells())
        alarms += decide.compare(grid, fold.fold(grid, draw(n // cluster, cluster)), policy).verdict is Verdict.FAIL
    return alarms


def test_one_look_keeps_its_false_alarm_rate_even_at_a_threshold_near_zero() -> None:
    policy = Policy(psi=1e-9, alpha=0.05)
    alarms = _false_alarms(200, cluster=1, policy=policy, seed=5)
    assert alarms <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


@pytest.mark.slow
def test_clustered_rows_need_and_get_their_design_effect() -> None:
    policy = Policy(psi=1e-9, alpha=0.05, rows_per_unit=5)
    assert _false_alarms(400, cluster=5, policy=policy, seed=6) <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
    naive = Policy(psi=1e-9, alpha=0.05)
    assert _false_alarms(50, cluster=5, policy=naive, seed=6) > 40
