"""IBM's sample of telco subscribers, mapped to the raw rows of churn. The file itself is not part of the project."""

from pathlib import Path

import pandas as pd

_YES_NO = {
    "Partner": "partner",
    "Dependents": "dependents",
    "PhoneService": "phone_service",
    "MultipleLines": "multiple_lines",
    "OnlineSecurity": "online_security",
    "OnlineBackup": "online_backup",
    "DeviceProtection": "device_protection",
    "TechSupport": "tech_support",
    "StreamingTV": "streaming_tv",
    "StreamingMovies": "streaming_movies",
    "PaperlessBilling": "paperless_billing",
    "Churn": "churned",
}
_CONTRACTS = {"Month-to-month": "month_to_month", "One year": "one_year", "Two year": "two_year"}
_INTERNET = {"No": "none", "DSL": "dsl", "Fiber optic": "fiber"}
_PAYMENTS = {
    "Electronic check": "electronic_check",
    "Mailed check": "mailed_check",
    "Bank transfer (automatic)": "bank_transfer",
    "Credit card (automatic)": "credit_card",
}


def load(path: Path) -> pd.DataFrame:
    """Raw rows; "No internet service" and "No phone service" are a plain no. `gender` is left out on purpose."""
    source = pd.read_parquet(path)
    out = pd.DataFrame(
        {
            "customer_id": source["customerID"],
            "senior": source["SeniorCitizen"] == 1,
            "tenure_months": source["tenure"].astype(float),
            "internet_service": source["InternetService"].map(_INTERNET),
            "contract": source["Contract"].map(_CONTRACTS),
            "payment_method": source["PaymentMethod"].map(_PAYMENTS),
            "monthly_charges": source["MonthlyCharges"],
            "total_charges": source["TotalCharges"],
        }
    )
    for theirs, ours in _YES_NO.items():
        out[ours] = source[theirs] == "Yes"
    return out
