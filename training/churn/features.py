"""Subscriber snapshot -> final features. Pure; logged with every model version.

The same code makes training rows and, through `mlcp features churn`, the bodies a product service sends.
"""

import numpy as np
import pandas as pd

# The raw columns this needs; checked before it runs, so that bad data is a finding and not a traceback.
RAW = {
    "tenure_months": {"type": "number"},
    "monthly_charges": {"type": "number"},
    "total_charges": {"type": "number", "nullable": True},
}


def features(raw: pd.DataFrame, *, label_delay_s: int) -> pd.DataFrame:
    """Every raw column, plus what the bills say over time. One row in, one row out, in the order given.

    charge_increase: last bill minus the average bill so far, EUR; null before the first bill. `label_delay_s` is not
    used: no feature is made of labels.
    """
    out = raw.copy()
    tenure = out["tenure_months"].to_numpy(dtype=np.float64, na_value=np.nan)
    total = out["total_charges"].to_numpy(dtype=np.float64, na_value=np.nan)
    average = np.divide(total, tenure, out=np.full(len(out), np.nan), where=tenure > 0)
    out["charge_increase"] = out["monthly_charges"].to_numpy(dtype=np.float64, na_value=np.nan) - average
    return out
