"""An effect and its always-valid interval over time, as one self-contained SVG that any browser shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from math import ceil, floor, log10

_WIDTH, _HEIGHT = 860, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 48, 52


@dataclass(frozen=True, slots=True)
class Point:
    """One look. `units`: closed customers of both arms."""

    at: datetime
    step: int
    units: int
    effect: float
    low: float
    high: float
    decided: str | None = None


def svg(points: Sequence[Point], *, title: str, margin: float | None = None) -> str:
    """Points in order of time, at least one. Dashed: plus and minus `margin`; upright: where something was decided.

    The scale follows the later half of the looks: the first intervals are as wide as the metric's whole range.
    """
    start, end = points[0].at.timestamp(), points[-1].at.timestamp()
    later = points[len(points) // 2 :]
    values = [v for p in later for v in (p.low, p.high)] + [0.0, *([margin, -margin] if margin else [])]
    low, high = min(values), max(values)
    room = (high - low or 1.0) * 0.08
    low, high = low - room, high + room

    def x(at: float) -> float:
        share = 0.5 if end == start else (at - start) / (end - start)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        inside = min(max(value, low), high)
        return _TOP + (high - inside) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    seen = [(x(p.at.timestamp()), p) for p in points]
    band = [f"{at:.1f},{y(p.high):.1f}" for at, p in seen] + [f"{at:.1f},{y(p.low):.1f}" for at, p in reversed(seen)]
    line = " ".join(f"{at:.1f},{y(p.effect):.1f}" for at, p in seen)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="24" text-anchor="end" fill="#666666">{escape(_legend(margin))}</text>',
        *(_rule(y(v), f"{v:g}") for v in _ticks(low, high)),
        f'<polygon points="{" ".join(band)}" fill="#9ecae1" fill-opacity="0.55"/>',
        f'<polyline points="{line}" fill="none" stroke="#08519c" stroke-width="2"/>',
        _across(y(0.0), "#444444", ""),
    ]
    if margin:
        parts += [_across(y(v), "#d95f0e", ' stroke-dasharray="5 4"') for v in (margin, -margin)]
    for at, p in seen:
        if p.decided:
            near = "start" if at < 2 * _LEFT else "end" if at > _WIDTH - 2 * _LEFT else "middle"  # of an edge: inwards
            parts.append(
                f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{_HEIGHT - _BOTTOM}" stroke="#31a354"/>'
                f'<text x="{at:.1f}" y="{_TOP - 6}" text-anchor="{near}" fill="#31a354">{escape(p.decided)}</text>'
            )
    below = _HEIGHT - _BOTTOM + 18
    shown = sorted({0, len(seen) // 3, 2 * len(seen) // 3, len(seen) - 1})
    for index in shown:
        at, p = seen[index]
        anchor = "start" if index == 0 and len(seen) > 1 else "end" if index == len(seen) - 1 > 0 else "middle"
        parts.append(
            f'<text x="{at:.1f}" y="{below}" text-anchor="{anchor}">{p.at:%m-%d %H:%M:%S}</text>'
            f'<text x="{at:.1f}" y="{below + 16}" text-anchor="{anchor}" fill="#666666">{p.units} customers</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(margin: float | None) -> str:
    return "band: always-valid interval" + ("; dashed: the margin" if margin else "")


def _rule(at: float, label: str) -> str:
    return (
        f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_WIDTH - _RIGHT}" y2="{at:.1f}" stroke="#e6e6e6"/>'
        f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#666666">{label}</text>'
    )


def _across(at: float, colour: str, more: str) -> str:
    return f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_WIDTH - _RIGHT}" y2="{at:.1f}" stroke="{colour}"{more}/>'


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers."""
    step = 10 ** floor(log10((high - low) / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 7)
    return [round(k * step, 12) for k in range(ceil(low / step), floor(high / step) + 1)]
