"""Subscribers with a known truth: `truth` is the probability each of them leaves with.

Invented figures in plausible proportions: new customers on monthly contracts leave, long ones on two-year contracts
stay, fiber and electronic checks go with leaving, add-ons with staying, and a rising bill pushes.
"""

import numpy as np
import pandas as pd
from numpy.random import Generator

ADD_ONS = ("online_security", "online_backup", "device_protection", "tech_support", "streaming_tv", "streaming_movies")
_PRICES = {"online_security": 5.0, "online_backup": 5.0, "device_protection": 5.0, "tech_support": 5.0}


def simulate(rows: int, rng: Generator, *, scenario: str = "stable") -> pd.DataFrame:
    """`rows` subscribers.

    stable   the world the model is trained on
    drifted  younger contracts, more fiber, prices up 12 %: inputs move, who leaves for which inputs does not
    better   the same inputs, outcomes nearer to what they say (steeper truth)
    worse    the same inputs, outcomes turned around for contracts and add-ons: what was learnt no longer holds
    """
    drifted = scenario == "drifted"
    contract = rng.choice(3, rows, p=[0.72, 0.16, 0.12] if drifted else [0.55, 0.21, 0.24])
    internet = rng.choice(3, rows, p=[0.15, 0.25, 0.60] if drifted else [0.22, 0.34, 0.44])
    tenure = np.minimum(72, rng.gamma(1.3 + 0.9 * contract, 11 if drifted else 15)).round()
    online = internet > 0
    base = np.choose(internet, [19.0, 44.0, 69.0]) * (1.12 if drifted else 1.0)
    add_ons = {name: online & (rng.random(rows) < 0.3 + 0.08 * contract) for name in ADD_ONS}
    phone = rng.random(rows) < 0.9
    lines = phone & (rng.random(rows) < 0.45)
    monthly = base + 5 * lines + sum(_PRICES.get(name, 10.0) * booked for name, booked in add_ons.items())
    monthly = np.round(monthly + rng.normal(0, 1.5, rows), 2).clip(15)
    rise = rng.gamma(1.0, 2.5, rows) * (tenure > 6)  # how far the last bill lies above the average so far
    total = np.round(np.maximum(monthly - rise, 10) * tenure, 2)
    senior, partner = rng.random(rows) < 0.16, rng.random(rows) < 0.48
    dependents = partner & (rng.random(rows) < 0.5)
    paperless = rng.random(rows) < 0.45 + 0.15 * (internet == 2)
    payment = rng.choice(4, rows, p=[0.34, 0.22, 0.22, 0.22])

    turned = -0.6 if scenario == "worse" else 1.0
    score = (
        -1.15
        - turned * np.array([0.0, 1.35, 2.6])[contract]
        + np.array([-0.75, 0.0, 0.85])[internet]
        - 0.45 * np.log1p(tenure)
        + 1.3 * (tenure <= 4)
        + 0.5 * (payment == 0)
        + 0.3 * paperless
        + 0.25 * senior
        - 0.2 * dependents
        + 0.012 * (monthly - 60)
        + 0.11 * rise
        - turned * 0.45 * (add_ons["online_security"].astype(float) + add_ons["tech_support"])
        + 0.9
    )
    truth = 1 / (1 + np.exp(-score * (1.8 if scenario == "better" else 1.25)))
    first = rng.integers(10_000_000)
    return pd.DataFrame(
        {
            "customer_id": [f"c-{first + i:08d}" for i in range(rows)],
            "senior": senior,
            "partner": partner,
            "dependents": dependents,
            "tenure_months": tenure,
            "phone_service": phone,
            "multiple_lines": lines,
            "internet_service": np.array(["none", "dsl", "fiber"])[internet],
            **add_ons,
            "contract": np.array(["month_to_month", "one_year", "two_year"])[contract],
            "paperless_billing": paperless,
            "payment_method": np.array(["electronic_check", "mailed_check", "bank_transfer", "credit_card"])[payment],
            "monthly_charges": monthly,
            "total_charges": np.where(tenure > 0, total, np.nan),
            "churned": rng.random(rows) < truth,
            "truth": truth,
        }
    )
