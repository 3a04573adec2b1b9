"""The model card: what a version is, what it was made of and how far to trust it, for a reader without MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.domain.model_config import ModelConfig, Problem
from training.common import validation
from training.common.data import Fingerprint
from training.common.pipeline import Prepared, Trained


def markdown(
    config: ModelConfig,
    trained: Trained,
    prepared: Prepared,
    source: Fingerprint,
    evidence: Mapping[str, Any],
    importances: Mapping[str, float],
) -> str:
    """Sections after Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv:1810.03993."""
    assert config.metric is not None
    manifest, interval, parts = trained.manifest, trained.interval, prepared.parts
    production = evidence["production"]
    lines = [
        f"# {config.name} {manifest.semver}",
        "",
        config.purpose or "No purpose is declared.",
        "",
        f"- Owner: {config.owner or 'not declared'}; materiality {config.materiality}",
        f"- Problem: {config.problem.value}; kind: {manifest.kind} ({trained.winner.candidate.name})",
        f"- Declared metric: {config.metric.name} **{interval.value:.4f}** "
        f"(95 % interval {interval.low:.4f} to {interval.high:.4f}) on {len(parts.holdout):,} hold-out rows",
        f"- Production on the same rows: version {production['version']}, {production['value']:.4f}"
        if production
        else "- Production on the same rows: none, or not comparable",
    ]
    if trained.cost is not None and config.costs is not None:
        currency = config.costs.currency
        lines.append(
            f"- Cost on the hold-out: {trained.cost:,.0f} {currency} at threshold {manifest.threshold:.4f}; the "
            f"better of always yes and always no costs {trained.trivial_cost:,.0f} {currency}"
        )
    lines += [
        "",
        "## Data",
        "",
        f"- Source: {source.source}; {source.rows:,} rows; SHA-256 {source.sha256}",
        f"- Time range: {source.start} to {source.end}"
        if source.start
        else "- No time column: a hash of unit or row decides who judges",
        f"- Fitted on {len(parts.fit):,} rows, chosen and calibrated on {len(parts.validation):,}, fitted again on "
        f"{len(parts.train):,}, judged once on {len(parts.holdout):,}",
        f"- Labels are trusted {config.label.delay_s / 86_400:g} days after the event"
        + ("; they depend on the decision taken" if config.label.depends_on_decision else ""),
        "",
        "## Candidates",
        "",
        "| candidate | validation " + config.metric.name + " | fitted in |",
        "|---|---|---|",
        *(
            f"| {tried.candidate.name}{' (chosen)' if tried is trained.winner else ''} "
            f"| {tried.value:.4f} | {tried.seconds:.1f} s |"
            for tried in trained.tried
        ),
        "",
        f"A slower kind has to gain {config.training.slower_model_margin:g} to win.",
        "",
        "## Metrics on the hold-out",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:,.4f} |" for name, value in trained.metrics.items()),
        "",
        *_by_group(config, evidence["groups"]),
        "## What moves the score",
        "",
        *(f"{i}. {name}: {value:.3f}" for i, (name, value) in enumerate(_largest(importances), 1)),
        "",
        "Mean absolute contribution in margin units; it says what the model uses, not what causes the outcome.",
        "",
        "## Features",
        "",
        "| feature | type | null allowed | personal | meaning |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {feature.type.value} | {_yes_no(feature.nullable)} | {_yes_no(feature.pii)} "
            f"| {feature.description} |"
            for name, feature in config.features.items()
        ),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _limits(config, trained, prepared)),
        "",
    ]
    return "\n".join(lines)


def _by_group(config: ModelConfig, groups: Sequence[Mapping[str, Any]]) -> list[str]:
    assert config.metric is not None
    if not groups:
        return []
    binary = config.problem is Problem.BINARY
    shares = " decided positive | really positive |" if binary else ""
    lines = [
        "## By group",
        "",
        f"| group | hold-out rows | {config.metric.name} |{shares}",
        "|---|---|---|" + "---|---|" * binary,
    ]
    for group in groups:
        value = "too few rows of each class"
        if group["value"] is not None:
            value = f"{group['value']:.4f} ({group['low']:.4f} to {group['high']:.4f})"
        tail = f" {group['flagged_share']:.1%} | {group['positive_share']:.1%} |" if binary else ""
        lines.append(f"| {group['column']}: {group['group']} | {group['rows']:,} | {value} |{tail}")
    note = "Intervals of 95 %, each for itself: with many groups some differ by chance alone."
    return [*lines, "", note, ""]


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _largest(importances: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(importances.items(), key=lambda item: -item[1])[:10]


def _limits(config: ModelConfig, trained: Trained, prepared: Prepared) -> list[str]:
    found = ["Judged on one hold-out; the interval covers sampling, not a world that changes."]
    if prepared.leakage != validation.LEAKAGE_CHECKED:
        found.append(f"Leakage: {prepared.leakage}.")
    if missing := [name for name in config.training.groups if name not in prepared.frame]:
        found.append(f"Nothing is known by group of {', '.join(missing)}: these rows lack it.")
    if config.time is None:
        found.append("Rows have no time, so nothing is said about how fast the model ages.")
    if config.label.depends_on_decision:
        found.append("The outcome of a positive decision is not observed; live metrics are bounds.")
    if config.label.absence_means == "negative":
        found.append("A label that never came counts as negative.")
    if trained.interval.low != trained.interval.low:
        found.append("Too few rows of one class for an interval.")
    return found
