"""Real data whose drift is known: is it found, where, and are the right features named?

    python -m benchmarks.drift.real [--data ../shared/data] [--only elec2,fraud,categorization] [--out results.json]

elec2: the NSW electricity market; prices and demand of Victoria are constant until half-hour 17,424. Half-hours of one
day hang together, so a day counts as one row (`rows_per_unit`); each day looks at the last eight weeks.
fraud: card payments, learnt on 8 May to 23 June 2018. In July once with labels a week late, and once with no label from
24 June on: what terminals did lately is then unknown.
categorization: purchase cards, merchant text alone, learnt before July 2016, six quarters from October 2016 on.
Performance alarms at the monitor's own level, `drift.alpha` shared out over hourly looks for 90 days.
"""

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier

from control_plane.domain.drift import decide, estimate, fold, monitor
from control_plane.domain.drift.estimate import Estimate
from control_plane.domain.drift.monitor import ALPHAS, Kind
from control_plane.domain.model_config import FeatureType
from control_plane.domain.rollouts import Verdict
from training.categorization import birmingham
from training.fraud import features as fraud_features
from training.fraud import handbook

ROOT = Path(__file__).parents[2]
ALPHA = 0.01 * ALPHAS[Kind.PERFORMANCE] / (24 * 90)
DROP = 0.05
VICTORIA = 17_424
VICTORIAN = ("vicprice", "vicdemand", "transfer")
DAY, WINDOW = 48, 56 * 48  # half-hours
DELAY_S = 7 * 86_400


def elec2(folder: Path) -> dict[str, Any]:
    frame = pd.read_parquet(folder / "drift_elec2.parquet").sort_values("seq", ignore_index=True)
    names = ["nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    begin = int(0.3 * len(frame))
    types = dict.fromkeys(names, FeatureType.NUMBER)
    grid = fold.reference({n: frame[n].to_numpy()[:begin] for n in names}, types, cells=fold.Cells())
    policy = decide.Policy(rows_per_unit=float(DAY))
    first: dict[str, int] = {}
    ends = range(begin + WINDOW, len(frame) + 1, DAY)
    for end in ends:
        window = frame.iloc[end - WINDOW : end]
        report = decide.compare(grid, fold.fold(grid, {n: window[n].to_numpy() for n in names}), policy)
        for one in report.features:
            if one.verdict is Verdict.FAIL:
                first.setdefault(one.name, end)
    inside = [*names, "period"]
    model = HistGradientBoostingClassifier(random_state=0).fit(frame[inside][:begin], frame["class"][:begin])
    right = model.predict(frame[inside][begin:]) == frame["class"][begin:]
    cut = int(0.8 * begin)  # the hold-out of the first part, for what is usual
    early = HistGradientBoostingClassifier(random_state=0).fit(frame[inside][:cut], frame["class"][:cut])
    usual = float((early.predict(frame[inside][cut:begin]) == frame["class"][cut:begin]).mean())
    months = [np.asarray(right)[at : at + 30 * DAY] for at in range(0, len(right) - 30 * DAY, 30 * DAY)]
    return {
        "looks": len(ends),
        "first half-hour beyond the first window with it named": first,
        "days after Victoria went live": {n: (first[n] - VICTORIA) / DAY for n in VICTORIAN if n in first},
        "accuracy": _course("accuracy", usual, [estimate.realised_share(month) for month in months]),
    }


def fraud(folder: Path) -> dict[str, Any]:
    raw = handbook.load(folder / "fraud_handbook_apr_jul.parquet")
    at = raw["event_time"]
    stale = raw.assign(fraud=raw["fraud"].where(at < pd.Timestamp("2018-06-24")))
    made = {n: fraud_features.features(r, label_delay_s=DELAY_S) for n, r in (("fresh", raw), ("stale", stale))}
    names = [c for c in made["fresh"] if c not in fraud_features.RAW or c == "amount"]
    learnt = ((at >= "2018-05-08") & (at < "2018-06-17")).to_numpy()
    kept = ((at >= "2018-06-17") & (at < "2018-06-24")).to_numpy()
    model = HistGradientBoostingClassifier(random_state=0).fit(made["fresh"][names][learnt], raw["fraud"][learnt])
    hold_out = estimate.realised_auc(model.predict_proba(made["fresh"][names][kept])[:, 1], raw["fraud"][kept])
    assert hold_out is not None
    found: dict[str, Any] = {"hold-out AUC": hold_out.value}
    for name, frame in made.items():
        weeks: list[Estimate] = []
        for week in range(4):
            begin = pd.Timestamp("2018-07-01") + pd.Timedelta(days=7 * week)
            mine = ((at >= begin) & (at < begin + pd.Timedelta(days=7))).to_numpy()
            auc = estimate.realised_auc(model.predict_proba(frame[names][mine])[:, 1], raw["fraud"][mine])
            assert auc is not None
            weeks.append(auc)
        low, _ = hold_out.interval(0.05)
        found[f"{name} labels, weeks of July"] = _course("roc_auc", hold_out.value, weeks, near=low)
    return found


def categorization(folder: Path) -> dict[str, Any]:
    frame = birmingham.load(folder / "cat_birmingham_pcards.parquet").dropna(subset=["merchant", "category"])
    at, learnt = frame["event_time"], frame["event_time"] < "2016-07-01"
    top = frame.loc[learnt, "category"].value_counts().index[:20]
    truth = frame["category"].where(frame["category"].isin(top), "OTHER")
    words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=3, sublinear_tf=True)
    seen = words.fit_transform(frame.loc[learnt, "merchant"])
    model = SGDClassifier(loss="log_loss", alpha=1e-6, random_state=0).fit(seen, truth[learnt])
    grid = fold.reference(
        {"merchant": frame.loc[learnt, "merchant"].tolist()}, {"merchant": FeatureType.TEXT}, cells=fold.Cells()
    )
    quarters = pd.date_range("2016-07-01", periods=8, freq="QS")
    shares: list[Estimate] = []
    texts: list[dict[str, Any]] = []
    for begin, end in pairwise(quarters):
        mine = (at >= begin) & (at < end)
        merchants = frame.loc[mine, "merchant"]
        shares.append(estimate.realised_share(model.predict(words.transform(merchants)) == truth[mine].to_numpy()))
        window = fold.fold(grid, {"merchant": merchants.tolist()})
        (told,) = decide.compare(grid, window, decide.Policy()).features
        texts.append({"quarter": f"{begin:%Y-%m}", "verdict": told.verdict.value, "psi": told.psi, "why": told.why})
    low, _ = shares[0].interval(0.05)
    return {
        "accuracy, third quarter of 2016": shares[0].value,
        "accuracy, six quarters": _course("accuracy", shares[0].value, shares[1:], near=low),
        "merchant text": texts,
    }


def _course(metric: str, usual: float, found: list[Estimate], *, near: float | None = None) -> dict[str, Any]:
    """Value of each window; the windows that raise the performance alarm."""
    read = [monitor.read_performance(metric, one, usual, near, DROP, ALPHA, how="realised") for one in found]
    return {
        "usual": round(usual, 4),
        "values": [round(one.value, 4) for one in found],
        "rows": [one.rows for one in found],
        "alarms": [at + 1 for at, one in enumerate(read) if one.alarm],
    }


SETS: dict[str, Callable[[Path], dict[str, Any]]] = {"elec2": elec2, "fraud": fraud, "categorization": categorization}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {name: SETS[name](given.data) for name in given.only.split(",")}
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
