"""What one prediction contributes to a business metric declared in model.yaml. Pure."""

from collections.abc import Mapping

from control_plane.domain.model_config import BusinessMetric, Costs, ModelConfig


def contribution(
    metric: BusinessMetric,
    config: ModelConfig,
    *,
    decision: str | None,
    features: Mapping[str, object],
    probability: float | None,
) -> float | None:
    """In the metric's unit; None where the prediction does not count, or what it needs is no number."""
    if metric.decision is not None and decision != metric.decision:
        return None
    match metric.kind:
        case "count":
            return 1.0
        case "sum":
            return number(features.get(metric.feature or ""))
        case "expected_saving":
            if config.costs is None or probability is None:
                return None
            if decision != config.decision.positive:
                return 0.0
            amount = number(features.get(config.costs.false_negative_column or ""))
            return expected_saving(probability, config.costs, amount)


def expected_saving(probability: float, costs: Costs, amount: float | None = None) -> float:
    """Expected cost of the negative decision less that of the positive one, in the costs' currency.

    `probability`: of the positive class, 0..1. `amount`: what a false negative of this very row costs.
    """
    missed = costs.false_negative if amount is None else amount
    left_alone = probability * missed + (1 - probability) * costs.true_negative
    acted = probability * costs.true_positive + (1 - probability) * costs.false_positive
    return left_alone - acted


def number(value: object) -> float | None:
    """The value if it is a number, as float; a boolean is none, nor is an integer beyond a float's range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
