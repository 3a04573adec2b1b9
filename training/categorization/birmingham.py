"""Birmingham City Council's purchase cards, mapped to the raw rows of categorization. Not part of the project."""

from pathlib import Path

import pandas as pd

_COLUMNS = {
    "tx_id": "payment_id",
    "tx_date": "event_time",
    "merchant": "merchant",
    "amount_gbp": "amount",
    "directorate": "department",
    "unit_code": "cost_centre",
    "vat_code": "tax_code",
    "category": "category",
}  # category_code is the target by another name


def load(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, columns=list(_COLUMNS)).rename(columns=_COLUMNS)
