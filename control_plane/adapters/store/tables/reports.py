"""Reports that were made; the documents themselves are files beside the archive."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class ReportRow(Base):
    """One report, by the id of the job that made it: made again, it takes its own place."""

    __tablename__ = "reports"
    __table_args__ = (one_of("kind", "deployment", "rollback", "retraining", "drift", "incident", "monthly"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]  # deployment | rollback | retraining | drift | incident | monthly
    title: Mapped[str]
    summary: Mapped[list[Any]]  # sentences
    made_at: Mapped[datetime]
    sha256: Mapped[str]  # of <id>.json
    pdf_sha256: Mapped[str]  # of <id>.pdf
