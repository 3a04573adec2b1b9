"""The Fraud Detection Handbook's simulated payments, mapped to the raw rows of fraud. Not part of the project."""

from pathlib import Path

import pandas as pd

_COLUMNS = {
    "TRANSACTION_ID": "transaction_id",
    "TX_DATETIME": "event_time",
    "CUSTOMER_ID": "customer_id",
    "TERMINAL_ID": "terminal_id",
    "TX_AMOUNT": "amount",
    "TX_FRAUD": "fraud",
}  # TX_FRAUD_SCENARIO gives the label away


def load(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, columns=list(_COLUMNS)).rename(columns=_COLUMNS)
