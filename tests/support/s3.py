"""A real S3 server for tests, and a client of it."""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
from botocore.config import Config

from tests.support.processes import free_port, running, wait_until

_KEYS = ("test:tester", "testing")  # of the Swift server


@dataclass(frozen=True, slots=True)
class S3:
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str

    @property
    def env(self) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def url(self, prefix: str) -> str:
        """As pyarrow reads it."""
        parts = urlsplit(self.endpoint)
        return f"s3://{self.bucket}/{prefix}?endpoint_override={parts.netloc}&scheme={parts.scheme}&region=us-east-1"

    def client(self, **more: Any) -> Any:
        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **more)
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=config,
        )

    def listed(self, prefix: str = "") -> list[str]:
        found = self.client().list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for entry in found.get("Contents", ())]


@contextmanager
def swift(folder: Path, port: int | None = None) -> Iterator[str]:
    """The endpoint of OpenStack Swift's S3 API; its objects stay in `folder`."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-W", "ignore", "-m", "tests.support.swift_server", str(folder), str(port)]
    with running(argv, log=folder / "log") as child:

        def answers() -> bool:
            assert child.poll() is None, f"the S3 server ended: {(folder / 'log').read_text()[-2_000:]}"
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthcheck", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, what="the S3 server answers", every=0.1)
        yield f"http://127.0.0.1:{port}"


def fresh(endpoint: str) -> S3:
    """With a bucket of its own."""
    access, secret = _KEYS
    if os.environ.get("MLCP_TEST_S3_ENDPOINT"):
        access, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    made = S3(endpoint, access, secret, f"mlcp-{secrets.token_hex(6)}")
    made.client().create_bucket(Bucket=made.bucket)
    return made
