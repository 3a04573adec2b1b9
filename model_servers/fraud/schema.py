"""Request and answer of fraud. Generated from model.yaml by `mlcp generate fraud`: do not edit.

Whether a card payment is fraudulent, asked before it is authorised.
"""

# fmt: off
# ruff: noqa: E501

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Features(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model reads. Values outside a range or unknown to training are served, and counted."""

    amount: Annotated[
        float,
        Meta(description="amount of this payment in EUR. Usually 0 to 100000.", examples=[57.16]),
    ]
    hour: Annotated[
        int,
        Meta(description="hour of the day in UTC. Usually 0 to 23.", examples=[14]),
    ]
    weekend: Annotated[
        bool,
        Meta(description="Saturday or Sunday in UTC", examples=[False]),
    ]
    night: Annotated[
        bool,
        Meta(description="before 7 o'clock in UTC", examples=[False]),
    ]
    customer_payments_1d: Annotated[
        int,
        Meta(description="payments of the customer in the last day, this one included. Usually 1 to 100000.", examples=[2]),
    ]
    customer_amount_mean_1d: Annotated[
        float,
        Meta(description="their mean amount, EUR. Usually 0 to 100000.", examples=[48.1]),
    ]
    customer_payments_7d: Annotated[
        int,
        Meta(description="payments of the customer in the last 7 days, this one included. Usually 1 to 100000.", examples=[12]),
    ]
    customer_amount_mean_7d: Annotated[
        float,
        Meta(description="their mean amount, EUR. Usually 0 to 100000.", examples=[51.7]),
    ]
    customer_payments_30d: Annotated[
        int,
        Meta(description="payments of the customer in the last 30 days, this one included. Usually 1 to 100000.", examples=[55]),
    ]
    customer_amount_mean_30d: Annotated[
        float,
        Meta(description="their mean amount, EUR. Usually 0 to 100000.", examples=[53.02]),
    ]
    amount_to_mean_30d: Annotated[
        float,
        Meta(description="this amount divided by customer_amount_mean_30d. Usually 0 to 100000.", examples=[1.08]),
    ]
    customer_fraud_30d: Annotated[
        float,
        Meta(description="share of fraud among the customer's payments of 30 days whose truth is known (at least 7 days old). Usually 0 to 1.", examples=[0.0]),
    ]
    terminal_payments_1d: Annotated[
        int,
        Meta(description="payments at the terminal in one day that ended 7 days ago. Usually 0 to 1000000.", examples=[3]),
    ]
    terminal_risk_1d: Annotated[
        float,
        Meta(description="share of fraud among them. Usually 0 to 1.", examples=[0.0]),
    ]
    terminal_payments_7d: Annotated[
        int,
        Meta(description="payments at the terminal in 7 days that ended 7 days ago. Usually 0 to 1000000.", examples=[15]),
    ]
    terminal_risk_7d: Annotated[
        float,
        Meta(description="share of fraud among them. Usually 0 to 1.", examples=[0.0]),
    ]
    terminal_payments_30d: Annotated[
        int,
        Meta(description="payments at the terminal in 30 days that ended 7 days ago. Usually 0 to 1000000.", examples=[64]),
    ]
    terminal_risk_30d: Annotated[
        float,
        Meta(description="share of fraud among them. Usually 0 to 1.", examples=[0.015]),
    ]


class PredictRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of `POST /ml/fraud/predict`."""

    features: Features
    unit_id: str | None = None  # assignment unit, such as a customer's id; at most 128 bytes
    request_id: str | None = None  # the caller's own id
    model_version: str | None = None  # a version or alias to pin; needs the scope predict:pin


class Output(msgspec.Struct):
    probability: float  # of block, calibrated


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the model server answers; the router adds prediction_id, version and variant."""

    output: Output
    decision: Literal["block", "approve"]
    threshold: float  # decided block where the probability reaches it
