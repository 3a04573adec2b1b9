"""How features become a scorer's columns, decided on the rows a candidate is fitted on."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import Feature, FeatureType
from model_servers.native.manifest import Column
from model_servers.native.manifest import Feature as NativeFeature

Family = Literal["linear", "sparse", "trees"]
_BINS = 24  # of a number beside text: all columns 0 or 1, as the words are
_KNOTS = 5  # bends of a linear model's piecewise effect, at inner quantiles
_RARE = 5  # rows; a category with fewer is served as unseen
_MAX_CATEGORIES = 2_000
_MAX_ONEHOT = 16  # columns a tree gets for one category feature; beyond, one ordered column


def native_features(features: Mapping[str, Feature], arrays: list[NDArray[Any]]) -> tuple[NativeFeature, ...]:
    """What the manifest says of the inputs; undeclared categories are those the training rows have often enough."""
    return tuple(
        NativeFeature(
            name=name,
            type=feature.type.value,
            nullable=feature.nullable,
            range=feature.range,
            categories=(feature.categories or _frequent(values)) if feature.type is FeatureType.CATEGORY else None,
        )
        for (name, feature), values in zip(features.items(), arrays, strict=True)
    )


def plan(
    features: Mapping[str, Feature], arrays: list[NDArray[Any]], family: Family, target: NDArray[np.float64] | None
) -> tuple[Column, ...]:
    """Text features have no columns here. `target`: orders the many values of a category for trees; None: by frequency.

    Linear: numbers limited to their 0.1 % and 99.9 % quantiles, so that one absurd amount does not decide, filled with
    the median and bent at quantiles; one column per category. Sparse: numbers in quantile bins.
    Trees: numbers as they are.
    """
    made: list[Column] = []
    for (name, feature), values in zip(features.items(), arrays, strict=True):
        match feature.type:
            case FeatureType.TEXT:
                continue
            case FeatureType.CATEGORY:
                made.append(_category(name, values, family, target))
            case FeatureType.BOOLEAN:
                fill = None if family == "trees" else _median(values)
                made.append(Column(name, "number", fill=fill, null=family != "trees" and bool(np.isnan(values).any())))
            case FeatureType.NUMBER | FeatureType.INTEGER:
                match family:
                    case "linear":
                        made.append(_number(name, values))
                    case "sparse":
                        made.append(_bins(name, values))
                    case "trees":
                        made.append(Column(name, "number"))
    return tuple(made)


def _number(name: str, values: NDArray[np.float64]) -> Column:
    known = values[~np.isnan(values)]
    if not len(known):
        return Column(name, "number", fill=0.0)
    low, high = np.quantile(known, [0.001, 0.999]).tolist()
    inner = np.unique(np.quantile(known, np.linspace(0, 1, _KNOTS + 2)[1:-1]))
    knots = inner[(inner > low) & (inner < high)] if len(np.unique(known[:10_000])) > 2 else []
    null = bool(np.isnan(values).any())
    limits = (low, high) if low < high else (None, None)
    return Column(
        name, "number", knots=tuple(map(float, knots)), fill=_median(values), null=null, low=limits[0], high=limits[1]
    )


def _bins(name: str, values: NDArray[np.float64]) -> Column:
    known = values[~np.isnan(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else np.array([])
    return Column(name, "bins", knots=tuple(edges.tolist()), null=len(known) < len(values))


def _category(name: str, values: NDArray[Any], family: Family, target: NDArray[np.float64] | None) -> Column:
    null = any(value is None for value in values.tolist())
    known = _frequent(values)
    if family != "trees" or len(known) <= _MAX_ONEHOT:
        return Column(name, "onehot", values=known, null=null)
    if target is not None:
        known = tuple(sorted(known, key=_means(values, target).__getitem__))
    return Column(name, "ordinal", values=known)


def _frequent(values: NDArray[Any]) -> tuple[str, ...]:
    counts = Counter(values.tolist())
    del counts[None]
    kept = [value for value, count in counts.items() if count >= _RARE]
    return tuple(sorted(kept, key=lambda value: (-counts[value], value))[:_MAX_CATEGORIES])


def _means(values: NDArray[Any], target: NDArray[np.float64]) -> dict[str, float]:
    """Mean target per value, drawn towards the overall mean by 20 rows' weight."""
    total: dict[str, float] = {}
    count = Counter(values.tolist())
    for value, hit in zip(values.tolist(), target.tolist(), strict=True):
        total[value] = total.get(value, 0.0) + hit
    overall = float(target.mean())
    return {value: (total[value] + 20 * overall) / (count[value] + 20) for value in total}


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0
