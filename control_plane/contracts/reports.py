"""Wire models of /reports. The document itself is the domain's value: its schema is made from that."""

from datetime import datetime
from functools import cache
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, TypeAdapter

from control_plane.contracts.base import Reason, Request, Version, View
from control_plane.domain.reports.facts import Facts, Kind, Report

Month = Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")]


class ReportSpec(Request):
    """A report wanted by hand. It is made by a job; `kind` deployment or rollback: of `rollout_id`, else the newest."""

    model: str
    kind: Kind
    reason: Reason
    rollout_id: UUID | None = None
    version: Version | None = None  # of a retraining; None: the newest
    month: Month | None = None  # of a monthly report, such as 2026-10; None: the last 30 days


class ReportView(View):
    id: UUID
    model: str
    kind: Kind
    title: str
    made_at: datetime
    summary: list[str]
    sha256: str  # of the JSON document
    pdf_sha256: str


@cache
def adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a report's document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **adapter().json_schema(mode="serialization")}


def facts(found: Facts) -> str:
    """The facts alone, as JSON on one line."""
    return TypeAdapter(Facts).dump_json(found).decode()


def document(report: Report) -> bytes:
    """The JSON document."""
    return adapter().dump_json(report, indent=1) + b"\n"
