#!/bin/sh
# infra/secrets.sh FOLDER: every secret of an installation, one file each; what is there already stays as it is.
# The folder is for its owner alone. Its files can be read by all, since containers run as users of their own.
set -eu
[ $# -eq 1 ] || { echo "usage: infra/secrets.sh FOLDER" >&2; exit 2; }
umask 022
mkdir -p "$1"
chmod 700 "$1"
cd "$1"

keep() { # keep FILE TEXT: unless there is one
    [ -s "$1" ] && return
    printf '%s' "$2" > ".$1.new" # no newline: a cluster hands files on as variables
    chmod 444 ".$1.new"
    mv ".$1.new" "$1"
}
word() { od -An -N"${1:-24}" -tx1 /dev/urandom | tr -d ' \n'; }

keep postgres_password "$(word)" # of the superuser, whom no process of ours is
keep owner_password "$(word)"    # of the role that migrates and owns the audit
keep app_password "$(word)"      # of the processes' role
keep registry_password "$(word)" # of MLflow's role
host=${POSTGRES_HOST:-postgres}
keep mlcp_postgres_owner_dsn "postgresql+asyncpg://mlcp_owner:$(cat owner_password)@$host/mlcp"
keep mlcp_postgres_dsn "postgresql+asyncpg://mlcp_app:$(cat app_password)@$host/mlcp"
keep mlflow_backend "postgresql+psycopg://mlflow:$(cat registry_password)@$host/mlflow"
keep mlcp_router_token "$(word)"         # routers show it to fetch snapshots
keep mlcp_alert_webhook_secret "$(word)" # Alertmanager shows it, whoever else sends alerts signs with it
keep s3_access_key "$(word 10)"
keep s3_secret_key "$(word)"
credentials() { # credentials KEY SECRET: as every S3 client reads them
    printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s' "$(cat "$1")" "$(cat "$2")"
}
keep s3_credentials "$(credentials s3_access_key s3_secret_key)"
for bucket in archive artifacts; do # for MinIO's least privilege: infra/compose/minio-keys.sh
    keep "s3_${bucket}_key" "$(word 10)"
    keep "s3_${bucket}_secret" "$(word)"
    keep "s3_${bucket}_credentials" "$(credentials "s3_${bucket}_key" "s3_${bucket}_secret")"
done
keep grafana_password "$(word 12)"
