"""`python -m control_plane.embedded.buckets NAME...`: see to it that the buckets are there; plain S3, any server.

The server is MLFLOW_S3_ENDPOINT_URL (S3 itself without it); keys come from the environment, as for every S3 client.
"""

# pyright: basic, reportMissingTypeStubs=false
# (boto3 comes without types)

import os
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


def main() -> int:
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10, "mode": "standard"})
    client = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None, config=config)
    for bucket in sys.argv[1:]:
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as exc:
            if exc.response["Error"]["Code"] not in _THERE:
                sys.stderr.write(f"{bucket}: {exc}\n")
                return 1
        except BotoCoreError as exc:
            sys.stderr.write(f"{bucket}: {exc}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
