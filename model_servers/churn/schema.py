"""Request and answer of churn. Generated from model.yaml by `mlcp generate churn`: do not edit.

Which subscribers will leave within the next month, so that the retention desk calls those it pays to call. Not for
pricing and not for credit decisions.
"""

# fmt: off
# ruff: noqa: E501

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Features(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model reads. Values outside a range or unknown to training are served, and counted."""

    senior: Annotated[
        bool,
        Meta(description="65 years or older", examples=[False]),
    ]
    partner: Annotated[
        bool,
        Meta(description="lives with a partner", examples=[True]),
    ]
    dependents: Annotated[
        bool,
        Meta(description="lives with dependents", examples=[False]),
    ]
    tenure_months: Annotated[
        float,
        Meta(description="months since the first contract. Usually 0 to 600.", examples=[14.0]),
    ]
    phone_service: Annotated[
        bool,
        Meta(description="has a phone line", examples=[True]),
    ]
    multiple_lines: Annotated[
        bool,
        Meta(description="has more than one phone line", examples=[False]),
    ]
    internet_service: Annotated[
        str,
        Meta(description="kind of internet access. Known values: none, dsl, fiber; others are served as unseen.", examples=["fiber"]),
    ]
    online_security: Annotated[
        bool,
        Meta(description="add-on booked", examples=[False]),
    ]
    online_backup: Annotated[
        bool,
        Meta(description="add-on booked", examples=[True]),
    ]
    device_protection: Annotated[
        bool,
        Meta(description="add-on booked", examples=[False]),
    ]
    tech_support: Annotated[
        bool,
        Meta(description="add-on booked", examples=[False]),
    ]
    streaming_tv: Annotated[
        bool,
        Meta(description="add-on booked", examples=[True]),
    ]
    streaming_movies: Annotated[
        bool,
        Meta(description="add-on booked", examples=[False]),
    ]
    contract: Annotated[
        str,
        Meta(description="notice period. Known values: month_to_month, one_year, two_year; others are served as unseen.", examples=["month_to_month"]),
    ]
    paperless_billing: Annotated[
        bool,
        Meta(description="bills by mail to the inbox only", examples=[True]),
    ]
    payment_method: Annotated[
        str,
        Meta(description="how the last bill was paid. Known values: electronic_check, mailed_check, bank_transfer, credit_card; others are served as unseen.", examples=["electronic_check"]),
    ]
    monthly_charges: Annotated[
        float,
        Meta(description="the last monthly bill in EUR. Usually 0 to 1000.", examples=[79.85]),
    ]
    total_charges: Annotated[
        float | None,
        Meta(description="billed since the start, EUR; null before the first bill. Usually 0 to 200000.", examples=[1117.9]),
    ]
    charge_increase: Annotated[
        float | None,
        Meta(description="last monthly bill minus the average bill so far, EUR; null before the first bill. Usually -1000 to 1000.", examples=[0.0]),
    ]


class PredictRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of `POST /ml/churn/predict`."""

    features: Features
    unit_id: str | None = None  # assignment unit, such as a customer's id; at most 128 bytes
    request_id: str | None = None  # the caller's own id
    model_version: str | None = None  # a version or alias to pin; needs the scope predict:pin


class Output(msgspec.Struct):
    probability: float  # of call, calibrated


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the model server answers; the router adds prediction_id, version and variant."""

    output: Output
    decision: Literal["call", "leave_alone"]
    threshold: float  # decided call where the probability reaches it
    reasons: list[str] = []  # what moved the score furthest, in words
