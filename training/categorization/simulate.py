"""Company-card payments with a known truth: `truth` is the category before the bookkeeper's slips.

Merchant strings look like statements: upper case, store numbers, towns, processors' prefixes, cut at 24 characters.
Some merchants sell for several categories; there the department, the tax code and the amount have to help.
"""

import numpy as np
import pandas as pd
from numpy.random import Generator

START = np.datetime64("2026-01-01T00:00:00", "s")
_DAYS = 120
_SLIPS = 0.03  # share of rows booked under a random category

# category: merchants, median amount in EUR, tax code it mostly has, departments that mostly book it
_WORLD: dict[str, tuple[str, float, str, str]] = {
    "Fuel": ("SHELL FORECOURT|BP EXPRESS|ESSO MFG|TEXACO STAR|TOTAL ACCESS|ARAL TANKSTELLE", 55, "VR", "logistics"),
    "Groceries": ("LIDL|ALDI SUED|SPAR MARKET|REWE CITY|CARREFOUR|EDEKA", 28, "VZ", "canteen"),
    "Restaurants": ("PIZZERIA ROMA|BISTRO CENTRAL|SUSHI BAR|BURGER HOUSE|CAFE EXTRABLATT|TAPAS BAR", 42, "VR", "sales"),
    "Hotels": ("IBIS HOTEL|HILTON GARDEN|MOTEL ONE|NOVOTEL|PREMIER INN|BOOKING.COM", 140, "VL", "sales"),
    "Rail and bus": ("DEUTSCHE BAHN|SNCF|TRAINLINE|FLIXBUS|NATIONAL RAIL|OEBB TICKET", 48, "VL", "sales"),
    "Flights": ("LUFTHANSA|RYANAIR|EASYJET|KLM ROYAL DUTCH|AIR FRANCE|SWISS INTL", 220, "VX", "sales"),
    "Taxi": ("UBER TRIP|BOLT RIDE|FREENOW|TAXI ZENTRALE|CABIFY", 18, "VL", "sales"),
    "Software": ("GITHUB|ATLASSIAN|ADOBE CREATIVE|MICROSOFT 365|JETBRAINS|SLACK TECHNOLOGIES", 60, "VX", "engineering"),
    "Cloud": ("AWS EMEA|GOOGLE CLOUD|HETZNER ONLINE|OVH SAS|DIGITALOCEAN|SCALEWAY", 310, "VX", "engineering"),
    "Hardware": ("CONRAD ELECTRONIC|MEDIA MARKT|APPLE STORE|DELL DIRECT|ALTERNATE", 260, "VR", "engineering"),
    "Office supplies": ("STAPLES|VIKING DIRECT|OTTO OFFICE|RYMAN|BUERO DIREKT", 35, "VR", "administration"),
    "Postage": ("DHL PAKET|ROYAL MAIL|UPS ACCESS POINT|HERMES|LA POSTE|DPD PICKUP", 14, "VZ", "administration"),
    "Advertising": ("GOOGLE ADS|FACEBK ADS|LINKEDIN ADS|BING ADS|XING MARKETING", 400, "VX", "marketing"),
    "Training": ("UDEMY|COURSERA|OREILLY MEDIA|IHK AKADEMIE|PLURALSIGHT", 120, "VZ", "engineering"),
    "Repairs": ("BAUHAUS|OBI MARKT|HORNBACH|SCREWFIX|TOOLSTATION|WUERTH", 65, "VR", "facilities"),
    "Bank fees": ("CARD FEE|FOREIGN EXCHANGE FEE|CASH ADVANCE FEE|ACCOUNT SERVICE", 6, "VX", "administration"),
}
_SHARED = {"AMAZON MKTPLACE": ("Office supplies", "Hardware", "Repairs"), "TESCO STORES": ("Groceries", "Fuel"),
           "PAYPAL": ("Software", "Advertising", "Training")}  # fmt: skip
_NEW = ("NEXORA", "BRIGHTHUB", "VELOMARKT", "KAUFPUNKT", "ORBITEL", "MIDTOWN TRADING")  # strange to a trained model
_TOWNS = ("LEEDS", "BERLIN", "LYON", "MADRID", "WIEN", "UTRECHT", "PORTO", "GENT", "MILANO", "KRAKOW")
_DEPARTMENTS = ("logistics", "canteen", "sales", "engineering", "administration", "marketing", "facilities")
_TAX = ("VR", "VZ", "VL", "VX")


def simulate(rows: int, rng: Generator, *, scenario: str = "stable") -> pd.DataFrame:
    """`rows` payments over 120 days in time order.

    stable   the world the model is trained on
    drifted  30 % of payments go to merchants never seen, amounts up by a quarter; categories mean what they meant
    better   nobody shops where several categories are sold, and bookkeepers make no slips
    worse    the chart of accounts is changed: a third of the categories swap their meaning
    """
    names = list(_WORLD)
    weight = np.array([9, 8, 8, 5, 6, 3, 6, 6, 4, 4, 6, 5, 3, 2, 5, 4], dtype=float)
    category = rng.choice(len(names), rows, p=weight / weight.sum())
    drifted, better = scenario == "drifted", scenario == "better"
    merchants = [_WORLD[name][0].split("|") for name in names]
    sold_at = {name: [shop for shop, sells in _SHARED.items() if name in sells] for name in names}
    shared = rng.random(rows) < (0.0 if better else 0.12)
    strange = rng.random(rows) < (0.3 if drifted else 0.0)
    text = [
        _statement(
            rng,
            str(rng.choice(_NEW))
            if strange[i]
            else str(rng.choice(sold_at[names[k]] if shared[i] and sold_at[names[k]] else merchants[k])),
        )
        for i, k in enumerate(category.tolist())
    ]
    median = np.array([world[1] for world in _WORLD.values()])[category] * (1.25 if drifted else 1.0)
    home = np.array([_DEPARTMENTS.index(world[3]) for world in _WORLD.values()])[category]
    department = np.where(rng.random(rows) < 0.75, home, rng.integers(0, len(_DEPARTMENTS), rows))
    usual = np.array([_TAX.index(world[2]) for world in _WORLD.values()])[category]
    tax = np.where(rng.random(rows) < 0.85, usual, rng.integers(0, len(_TAX), rows))

    meaning = np.arange(len(names))
    if scenario == "worse":
        meaning[:6] = np.roll(meaning[:6], 1)
    slip = rng.random(rows) < (0.0 if better else _SLIPS)
    booked = np.where(slip, rng.integers(0, len(names), rows), meaning[category])
    second = np.sort(rng.integers(0, _DAYS * 86_400, rows))
    departments, centres = np.array(_DEPARTMENTS, dtype=object), rng.integers(1, 9, rows)
    named = departments[department]
    return pd.DataFrame(
        {
            "payment_id": np.arange(rows),
            "event_time": (START + second.astype("timedelta64[s]")).astype("datetime64[ms]"),
            "merchant": text,
            "amount": np.round(median * rng.lognormal(0, 0.6, rows) * np.where(rng.random(rows) < 0.02, -1, 1), 2),
            "department": pd.Series(named).mask(rng.random(rows) < 0.02),
            "cost_centre": [f"{name[:2].upper()}-{centre:02d}" for name, centre in zip(named, centres, strict=True)],
            "tax_code": np.array(_TAX, dtype=object)[tax],
            "category": np.array(names, dtype=object)[booked],
            "truth": np.array(names, dtype=object)[meaning[category]],
        }
    )


def _statement(rng: Generator, merchant: str) -> str:
    """One line as banks print it."""
    kind = rng.integers(0, 5)
    if kind == 0:
        merchant = f"SQ *{merchant}"
    if kind <= 2:
        merchant = f"{merchant} {rng.integers(1, 9_999):04d}"
    if kind >= 2:
        merchant = f"{merchant} {_TOWNS[rng.integers(0, len(_TOWNS))]}"
    return merchant[:24]
