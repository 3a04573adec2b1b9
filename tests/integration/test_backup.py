"""A backup and its way back: databases by pg_dump, objects from a bucket; everything is checked before it is used."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from control_plane.adapters.archive import Archive
from control_plane.embedded import backup
from control_plane.embedded.backup import CannotDo, Places
from tests.support.s3 import S3

pytestmark = pytest.mark.integration
HOUR = datetime(2026, 3, 4, 15, tzinfo=UTC)
PARTITION = "CREATE TABLE predictions_{name} PARTITION OF predictions FOR VALUES FROM ('{begin}') TO ('{end}')"


def ask(dsn: str, sql: str) -> object:
    engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        found = connection.execute(text(sql))
        answer = found.scalar() if found.returns_rows else None
    engine.dispose()
    return answer


def test_what_was_saved_comes_back_and_routers_believe_it(
    dsn: str, empty_database: str, s3: S3, tmp_path: Path
) -> None:
    ask(dsn, 'INSERT INTO installation ("only", id, epoch, created_at) VALUES (true, gen_random_uuid(), 7, now())')
    ask(
        dsn,
        "INSERT INTO ingest_watermark (spool, segment, \"offset\", stream_epoch, at) VALUES ('s', 1, 2, 'e', now())",
    )
    archive = Archive(s3.url("log"))
    row = {"prediction_id": "1", "model": "fraud", "status": "ok", "received_at": HOUR}
    archive.publish(archive.write("fraud", HOUR, [[row]], changed=1))
    ask(dsn, "CREATE SCHEMA queue CREATE TABLE jobs (id int)")
    ask(dsn, PARTITION.format(name="20260304", begin="2026-03-04", end="2026-03-05"))
    saved = backup.save(tmp_path / "b", Places({"control-plane": make_url(dsn)}, {"archive": s3.url("log")}))
    assert saved["objects"]["archive"]["files"] == 2

    there = Places({"control-plane": make_url(empty_database)}, {"archive": s3.url("elsewhere")})
    restored = backup.restore(tmp_path / "b", there, replace=False)
    assert ask(empty_database, 'SELECT "offset" FROM ingest_watermark') == 2
    assert restored["epoch"] == ask(empty_database, "SELECT epoch FROM installation")
    assert restored["epoch"] > 7
    assert [manifest.rows for manifest in Archive(s3.url("elsewhere")).hours("fraud")] == [1]

    with pytest.raises(CannotDo, match="has tables already"):
        backup.restore(tmp_path / "b", there, replace=False)
    ask(empty_database, "DELETE FROM ingest_watermark")
    ask(
        empty_database, PARTITION.format(name="20260305", begin="2026-03-05", end="2026-03-06")
    )  # newer than the backup
    backup.restore(tmp_path / "b", there, replace=True)
    assert ask(empty_database, "SELECT count(*) FROM ingest_watermark") == 1
    days = "SELECT string_agg(inhrelid::regclass::text, ' ') FROM pg_inherits WHERE inhparent = 'predictions'::regclass"
    assert ask(empty_database, days) == "predictions_20260304"


def test_a_backup_that_is_not_whole_is_refused_before_anything_is_written(
    dsn: str, empty_database: str, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "file").write_bytes(b"x")
    there = Places({"control-plane": make_url(dsn)}, {"archive": (tmp_path / "archive").as_uri()})
    backup.save(tmp_path / "b", there)
    target = Places({"control-plane": make_url(empty_database)}, {"archive": (tmp_path / "new").as_uri()})
    with pytest.raises(CannotDo, match="not empty"):
        backup.save(tmp_path / "b", there)
    (tmp_path / "b" / "archive" / "file").unlink()
    with pytest.raises(CannotDo, match="holds"):
        backup.restore(tmp_path / "b", target, replace=False)
    (tmp_path / "b" / "archive" / "file").write_bytes(b"x")
    dump = tmp_path / "b" / "control-plane.dump"
    dump.write_bytes(dump.read_bytes()[:-1])
    with pytest.raises(CannotDo, match="not what was saved"):
        backup.restore(tmp_path / "b", target, replace=False)
    (tmp_path / "b" / "manifest.json").unlink()
    with pytest.raises(CannotDo, match="no whole backup"):
        backup.restore(tmp_path / "b", target, replace=False)
    assert ask(empty_database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
