#!/bin/sh
# infra/k8s/secrets.sh [FOLDER]: every Secret of the namespace, out of files; those that are missing are made first.
# Put what is yours into the folder before: mlcp_postgres_dsn, mlcp_postgres_owner_dsn, mlflow_backend, s3_access_key,
# s3_secret_key. DEV=1: for the stores of the overlay dev. APPLY: what takes the manifests.
set -eu
folder=${1:-./secrets-k8s}
root=$(cd "$(dirname "$0")/../.." && pwd)
dev=${DEV:-}
[ ! -e "$folder/mlcp_postgres_dsn" ] || dev= # made before, or yours
"$root/infra/secrets.sh" "$folder"
cd "$folder"
umask 077
if [ -n "$dev" ]; then # one role, as its Postgres knows no other
    for name in mlcp_postgres_dsn:postgresql+asyncpg:mlcp mlcp_postgres_owner_dsn:postgresql+asyncpg:mlcp \
        mlflow_backend:postgresql+psycopg:mlflow; do
        file=${name%%:*} rest=${name#*:}
        rm -f "$file"
        printf '%s' "${rest%%:*}://mlcp:$(cat postgres_password)@postgres/${rest##*:}" > "$file"
    done
fi
if [ ! -s mlcp_audit_signing_key ]; then
    openssl genpkey -algorithm ed25519 -out mlcp_audit_signing_key
    openssl pkey -in mlcp_audit_signing_key -pubout -out mlcp_audit_public_key
fi

secret() { # secret NAME FILE|KEY=FILE...
    name=$1
    shift
    for file in "$@"; do
        [ -e "${file#*=}" ] && set -- "$@" "--from-file=$file"
        shift
    done
    kubectl create secret generic "$name" --namespace "${NAMESPACE:-ml-platform}" --dry-run=client --output yaml "$@" |
        ${APPLY:-kubectl apply --filename -}
}
secret mlcp-control-plane mlcp_postgres_dsn mlcp_router_token mlcp_alert_webhook_secret mlcp_audit_public_key
secret mlcp-migrations mlcp_postgres_dsn mlcp_postgres_owner_dsn
secret mlcp-audit mlcp_audit_signing_key
secret mlcp-data-plane mlcp_router_token
secret mlcp-alerts mlcp_alert_webhook_secret
secret mlflow backend=mlflow_backend
secret mlcp-s3 access-key=s3_access_key secret-key=s3_secret_key
secret postgres password=postgres_password
