#!/bin/sh
# Optional, for MinIO: keys that reach one bucket each, instead of the root's. docker compose run --rm minio-keys, then
# MLCP_ARCHIVE_CREDENTIALS=s3_archive_credentials MLCP_ARTIFACTS_CREDENTIALS=s3_artifacts_credentials in .env.
set -eu
export MC_CONFIG_DIR=/tmp/mc
secret() { cat "/run/secrets/$1"; }
mc alias set here http://minio:9000 "$(secret s3_access_key)" "$(secret s3_secret_key)" > /dev/null
for bucket in archive artifacts; do
    mc mb --ignore-existing "here/mlcp-$bucket"
    cat > "/tmp/$bucket.json" <<JSON
{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
   "Resource": ["arn:aws:s3:::mlcp-$bucket"]},
  {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload",
   "s3:ListMultipartUploadParts"], "Resource": ["arn:aws:s3:::mlcp-$bucket/*"]}
]}
JSON
    mc admin policy create here "mlcp-$bucket" "/tmp/$bucket.json"
    mc admin user add here "$(secret "s3_${bucket}_key")" "$(secret "s3_${bucket}_secret")"
    mc admin policy attach here "mlcp-$bucket" --user "$(secret "s3_${bucket}_key")" ||
        mc admin policy entities here --user "$(secret "s3_${bucket}_key")"
done
