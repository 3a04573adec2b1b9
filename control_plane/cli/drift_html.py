"""A drift report as one HTML file with pictures: no script, no address to fetch from, no row of anybody."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2733;--soft:#66727f;--line:#d9dee4;--paper:#fff;--card:#f6f8fa;--ref:#9aa7b5;
--now:#2563c9;--pass:#1a7f4b;--fail:#c2321d;--inconclusive:#a86a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9aa7b5;--line:#33404e;--paper:#12181f;--card:#1a222c;
--ref:#66727f;--now:#6ea3ff;--pass:#4cc38a;--fail:#ff7a66;--inconclusive:#f0b35a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;max-width:1080px;
padding:28px 20px 60px}h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:34px 0 10px}p{margin:4px 0}
.soft{color:var(--soft);font-size:13px}.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));
gap:14px}.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px;overflow:hidden}
.card h3{font-size:15px;margin:0;overflow-wrap:anywhere}.pass{color:var(--pass)}.fail{color:var(--fail)}
.inconclusive{color:var(--inconclusive)}b.v{font-size:12px;letter-spacing:.04em}
svg{display:block;width:100%;max-width:640px;margin:8px 0 2px}svg text{fill:var(--soft)}.r{fill:var(--ref)}
.n{fill:var(--now)}.h{stroke:var(--now)}.t{stroke:var(--fail)}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{border-bottom:1px solid var(--line);padding:5px 10px 5px 0;text-align:left;
vertical-align:top}td.x{text-align:right;font-variant-numeric:tabular-nums}.alarm{border-left:4px solid var(--fail);
padding:8px 14px;background:var(--card);margin:14px 0}
.key{display:inline-block;width:10px;height:10px;margin:0 4px 0 10px}
"""
_WIDTH, _HEIGHT = 300, 92
_SMALL = 'font-size="10" font-family="system-ui,sans-serif" fill="#66727f"'  # for readers that know no style sheets


def page(document: Mapping[str, Any], title: str) -> str:
    """`document`: a DriftView or a DriftReport as JSON. Whatever a name holds is shown as text."""
    history = _many(document, "history")
    parts = [f"<h1>{escape(title)}</h1>", *_head(document)]
    if readings := document.get("readings"):
        parts += ["<h2>What drifted</h2>", _readings(readings, history)]
    if performance := document.get("performance"):
        parts += _performance(performance, history)
    features = _many(document, "features")
    if prediction := document.get("prediction"):
        parts += ["<h2>Predictions</h2>", f'<div class="cards">{_card(prediction, [])}</div>']
    if features:
        legend = '<span class="key" style="background:var(--ref)"></span>reference'
        legend += '<span class="key" style="background:var(--now)"></span>now'
        parts += [f'<h2>Features <span class="soft">{legend}</span></h2>']
        cards = [_card(feature, [point["psi"].get(feature["name"]) for point in history]) for feature in features]
        parts += [f'<div class="cards">{"".join(cards)}</div>']
    if incidents := document.get("incidents"):
        parts += ["<h2>Incidents</h2>", _incidents(incidents)]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _many(document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    return cast("Sequence[Mapping[str, Any]]", document.get(name) or [])


def _head(document: Mapping[str, Any]) -> list[str]:
    if "reference_rows" in document:
        rows = f"{document['reference_rows']:,} rows against {document['current_rows']:,}."
        return [f"<p>{_verdict(document['verdict'])} {escape(document['why'])}</p>", f'<p class="soft">{rows}</p>']
    window, reference = document.get("window"), document.get("reference")
    parts: list[str] = []
    if window and reference:
        said = f"Version {document['version']}. {window['rows']:,} answers to {window['blocks']:,} customers, "
        said += f"{_time(window['since'])} to {_time(window['until'])}. Reference: "
        said += f"{reference['source'].replace('_', ' ')}, {reference['rows']:,} rows. Usual: {document.get('basis')}."
        parts.append(f'<p class="soft">{escape(said)}</p>')
    for incident in _many(document, "incidents"):
        if incident["closed_at"] is None:
            what = ", ".join(incident["features"]) or ", ".join(incident["kinds"])
            said = f"Alarm ({incident['severity']}) since {_time(incident['opened_at'])}: {what}"
            why = escape(incident["history"][-1]["why"])
            parts.append(f'<div class="alarm"><b class="fail">{escape(said)}</b><p class="soft">{why}</p></div>')
    if note := document.get("note"):
        parts.append(f"<p>{escape(note)}</p>")
    return parts


def _readings(readings: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> str:
    rows: list[str] = []
    for reading in readings:
        past = _line([point["scores"].get(reading["kind"]) for point in history], None, width=150, height=30)
        rows.append(
            f"<tr><td>{escape(reading['kind'])}</td><td>{_verdict(reading['verdict'])}</td>"
            f'<td class="x">{_number(reading["score"])}</td><td style="width:160px">{past}</td>'
            f"<td>{escape(reading['why'])}</td></tr>"
        )
    return f"<table><tr><th>drift<th>verdict<th>score<th>history<th>why</tr>{''.join(rows)}</table>"


def _performance(performance: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[str]:
    if performance.get("metric") is None:
        return []
    rows = [f'<tr><td>hold-out</td><td class="x">{_number(performance.get("reference"))}</td><td></td><td></td></tr>']
    for name in ("realised", "estimated", "expected_cost"):
        found = performance.get(name)
        if found is not None:
            span = f"{_number(found['low'])} to {_number(found['high'])} {found.get('currency', '')}"
            label = name.replace("_", " ") + (" per prediction" if name == "expected_cost" else "")
            rows.append(
                f'<tr><td>{label}</td><td class="x">{_number(found["value"])}</td>'
                f"<td>{escape(span)}</td><td>{found['rows']:,} answers</td></tr>"
            )
    metric = escape(str(performance["metric"]))
    lines = f"<h2>Performance: {metric}</h2><table><tr><th><th>value<th>interval<th></tr>{''.join(rows)}</table>"
    validity = escape(str(performance.get("validity") or ""))
    estimated = _line([point.get("estimated") for point in history], None, width=600, height=70, from_zero=False)
    return [lines, estimated, f'<p class="soft">{validity}</p>']


def _card(feature: Mapping[str, Any], past: Sequence[float | None]) -> str:
    facts = [f"PSI {_number(feature.get('psi'))}"]
    if feature.get("limit") is not None:
        facts.append(f"limit {_number(feature['limit'])}")
    for key, name in (("ks", "KS"), ("js", "JS"), ("wasserstein", "Wasserstein"), ("cramers_v", "Cramér's V")):
        if feature.get(key) is not None:
            facts.append(f"{name} {_number(feature[key])}")
    if feature.get("share") is not None:
        facts.append(f"explains {feature['share']:.0%} of the predictions' shift")
    findings = "".join(f"<p>{escape(found['why'])}</p>" for found in _many(feature, "findings"))
    picture = _histogram(feature["histogram"]) if feature.get("histogram") else ""
    history = _line(past, feature.get("limit"), width=_WIDTH, height=34)
    return (
        f'<div class="card"><h3>{escape(feature["name"])} {_verdict(feature["verdict"])}</h3>'
        f'<p class="soft">{escape(", ".join(facts))}</p>{picture}{history}'
        f'<p class="soft">{escape(feature["why"])}</p><div class="soft">{findings}</div></div>'
    )


def _histogram(histogram: Mapping[str, Any]) -> str:
    """Both sides as bars beside each other, one pair per cell; hovering names the cell."""
    reference, current, names = histogram["reference"], histogram["current"], histogram["cells"]
    full = max(*reference, *current) or 1.0
    wide = _WIDTH / len(names)
    bars: list[str] = []
    for at, name in enumerate(names):
        told = f"<title>{escape(name)}: {reference[at]:.2%} before, {current[at]:.2%} now</title>"
        for side, kind, fill, offset in ((reference, "r", "#9aa7b5", 0.08), (current, "n", "#2563c9", 0.5)):
            high = side[at] / full * (_HEIGHT - 4)
            x, y, width = (at + offset) * wide, _HEIGHT - high, wide * 0.42
            place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{high:.1f}"'
            bars.append(f'<rect class="{kind}" fill="{fill}" {place}>{told}</rect>')
    ends = f'<text x="0" y="{_HEIGHT + 13}" {_SMALL}>{escape(names[0][:26])}</text>'
    ends += f'<text x="{_WIDTH}" y="{_HEIGHT + 13}" text-anchor="end" {_SMALL}>{escape(names[-1][:26])}</text>'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 16}" role="img" aria-label="Histograms">{"".join(bars)}{ends}</svg>'


def _line(
    values: Sequence[float | None], limit: float | None, *, width: int, height: int, from_zero: bool = True
) -> str:
    """A history, oldest left; the dashed line is the limit. Nothing for fewer than two known values."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    low = min(value for _, value in known)
    low = min(0.0, low) if from_zero else low
    high = max(*(value for _, value in known), limit or 0.0, low + 1e-9)
    scale = (height - 4) / (high - low)
    points = " ".join(f"{at / (len(values) - 1) * width:.1f},{height - 2 - (v - low) * scale:.1f}" for at, v in known)
    rule = ""
    if limit is not None:
        y = height - 2 - (limit - low) * scale
        rule = (
            f'<line class="t" stroke="#c2321d" stroke-dasharray="4 3" x1="0" y1="{y:.1f}" x2="{width}" y2="{y:.1f}"/>'
        )
    drawn = f'{rule}<polyline class="h" fill="none" stroke="#2563c9" stroke-width="1.5" points="{points}"/>'
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="History">{drawn}</svg>'


def _incidents(incidents: Sequence[Mapping[str, Any]]) -> str:
    rows: list[str] = []
    for incident in incidents:
        for at, event in enumerate(incident["history"]):
            first = f"{_time(incident['opened_at'])}, version {incident['version']}" if at == 0 else ""
            rows.append(
                f"<tr><td>{escape(first)}</td><td>{_time(event['at'])}</td><td>{escape(event['what'])}</td>"
                f"<td>{escape(event['severity'])}</td><td>{escape(event['why'])}</td></tr>"
            )
    return f"<table><tr><th>incident<th>at (UTC)<th>what<th>severity<th>why</tr>{''.join(rows)}</table>"


def _verdict(verdict: str) -> str:
    return f'<b class="v {escape(verdict)}">{escape(verdict.upper())}</b>'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _time(at: str) -> str:
    return escape(at[:16].replace("T", " "))
