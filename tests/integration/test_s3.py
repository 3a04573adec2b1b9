"""Everything that is kept in a bucket, on a real S3 server: the archive first of all."""

import os
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.exceptions
import httpx
import pytest

from control_plane.adapters.archive import Archive, Damaged
from control_plane.errors import Unavailable
from tests.support.processes import free_port
from tests.support.s3 import S3, fresh, swift

pytestmark = pytest.mark.integration
HOUR = datetime(2026, 3, 4, 15, tzinfo=UTC)


def rows(
    count: int, *, hour: datetime = HOUR, features: str = '{"amount": 1.5}', start: int = 0
) -> list[dict[str, Any]]:
    return [
        {
            "prediction_id": f"{start + n:08d}",
            "model": "fraud",
            "status": "ok",
            "received_at": hour + timedelta(seconds=n % 3_600),
            "features": features,
            "unit_id": f"u-{n % 7}",
        }
        for n in range(count)
    ]


def test_an_hour_goes_into_the_bucket_and_comes_back_and_a_newer_file_replaces_it_in_one_step(s3: S3) -> None:
    archive = Archive(s3.url("log"))
    archive.publish(archive.write("fraud", HOUR, [rows(1_000)], changed=1))
    newer = archive.write("fraud", HOUR, [rows(1_000), rows(500, start=1_000)], changed=2)
    assert archive.manifest("fraud", HOUR).rows == 1_000  # type: ignore[union-attr]  (until it is published)
    archive.publish(newer)
    assert sum(batch.num_rows for batch in archive.batches("fraud", HOUR, HOUR + timedelta(hours=1))) == 1_500
    assert archive.models() == ["fraud"]
    assert [manifest.changed for manifest in archive.hours("fraud")] == [2]
    found = archive.find(HOUR, "00001400")
    assert found is not None
    assert found["unit_id"] == "u-1"
    files = [key for key in s3.listed() if not key.endswith("/")]  # an empty one may stand for the folder
    assert files == [f"log/predictions/fraud/2026-03-04/{name}" for name in (newer.file, "15.json")]


def test_a_file_that_was_changed_in_the_bucket_is_noticed(s3: S3) -> None:
    archive = Archive(s3.url("log"))
    made = archive.write("fraud", HOUR, [rows(100)], changed=1)
    archive.publish(made)
    key = f"log/predictions/fraud/2026-03-04/{made.file}"
    body = bytearray(s3.client().get_object(Bucket=s3.bucket, Key=key)["Body"].read())
    body[40] ^= 1
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=bytes(body))
    with pytest.raises(Damaged):
        archive.verify(made)


def test_a_file_larger_than_a_part_is_uploaded_in_parts(s3: S3) -> None:
    noise = random.Random(1)
    archive = Archive(s3.url("log"))
    parts = [
        [{**row, "features": f'"{noise.randbytes(1_500).hex()}"'} for row in rows(4_000, start=4_000 * n)]
        for n in range(3)
    ]
    made = archive.write("fraud", HOUR, parts, changed=1)
    archive.publish(made)
    head = s3.client().head_object(Bucket=s3.bucket, Key=f"log/predictions/fraud/2026-03-04/{made.file}")
    assert head["ContentLength"] == made.bytes > 12_000_000
    assert head["ETag"].strip('"').rpartition("-")[2].isdecimal()  # S3's mark of an upload in parts
    assert s3.client().list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


def test_a_wrong_key_is_refused_and_changes_nothing(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Unavailable, match="cannot be written"):
        Archive(s3.url("log")).write("fraud", HOUR, [rows(10)], changed=1)
    with pytest.raises(Unavailable, match="cannot be read"):
        Archive(s3.url("log")).models()
    assert s3.listed() == []


@pytest.mark.slow  # the S3 client of the archive tries for half a minute before it gives up
def test_a_server_that_goes_in_the_middle_leaves_no_hour_behind_and_the_next_attempt_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, server = free_port(), tmp_path / "s3"
    running = swift(server, port)
    mine = fresh(running.__enter__())
    for name, value in mine.env.items():
        monkeypatch.setenv(name, value)
    archive, stopped = Archive(mine.url("log")), list[bool]()

    def cut_off() -> Iterator[Sequence[dict[str, Any]]]:
        yield rows(50_000)
        running.__exit__(None, None, None)
        stopped.append(True)
        yield rows(50_000, start=50_000)

    try:
        with pytest.raises(Unavailable):
            archive.write("fraud", HOUR, cut_off(), changed=1)
        assert stopped == [True]
        with pytest.raises(Unavailable):
            archive.manifest("fraud", HOUR)
    finally:
        if not stopped:
            running.__exit__(None, None, None)
    with swift(server, port):
        assert archive.manifest("fraud", HOUR) is None
        assert mine.listed() == []
        archive.publish(archive.write("fraud", HOUR, [rows(1_000)], changed=1))
        assert [manifest.rows for manifest in archive.hours("fraud")] == [1_000]


def test_a_presigned_address_serves_one_object_for_a_while_and_no_other(s3: S3) -> None:
    client = s3.client(signature_version="s3v4")
    for key in ("report.pdf", "secret.pdf"):
        client.put_object(Bucket=s3.bucket, Key=key, Body=key.encode())
    wanted = {"Bucket": s3.bucket, "Key": "report.pdf"}
    address = client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=60)
    assert httpx.get(address).content == b"report.pdf"
    assert httpx.get(address.replace("report.pdf", "secret.pdf")).status_code == 403
    assert httpx.get(address.partition("?")[0]).status_code in {400, 401, 403}
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        S3(s3.endpoint, s3.access_key, "wrong", s3.bucket).client().list_objects_v2(Bucket=s3.bucket)
    assert os.environ["AWS_ACCESS_KEY_ID"] == s3.access_key
