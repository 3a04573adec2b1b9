"""Request and answer of categorization. Generated from model.yaml by `mlcp generate categorization`: do not edit.

Which expense category a company-card payment belongs to, proposed to the bookkeeper.
"""

# fmt: off
# ruff: noqa: E501

from typing import Annotated

import msgspec
from msgspec import Meta


class Features(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model reads. Values outside a range or unknown to training are served, and counted."""

    merchant: Annotated[
        str,
        Meta(description="merchant as printed on the statement; case, store numbers and towns as they come", examples=["SHELL FORECOURT 0482 LEEDS"]),
    ]
    amount: Annotated[
        float,
        Meta(description="amount in the account's currency, refunds negative. Usually -10000000 to 10000000.", examples=[54.2]),
    ]
    department: Annotated[
        str | None,
        Meta(description="department of the card holder", examples=["operations"]),
    ]
    cost_centre: Annotated[
        str | None,
        Meta(description="cost centre the card is booked on", examples=["OP-03"]),
    ]
    tax_code: Annotated[
        str | None,
        Meta(description="VAT code of the receipt", examples=["VR"]),
    ]


class PredictRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of `POST /ml/categorization/predict`."""

    features: Features
    unit_id: str | None = None  # assignment unit, such as a customer's id; at most 128 bytes
    request_id: str | None = None  # the caller's own id
    model_version: str | None = None  # a version or alias to pin; needs the scope predict:pin


class Output(msgspec.Struct):
    label: str
    probability: float  # of that label


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the model server answers; the router adds prediction_id, version and variant."""

    output: Output
