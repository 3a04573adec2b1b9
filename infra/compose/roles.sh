#!/bin/sh
# Run by the Postgres image when its volume is new: two databases, and a role for each kind of process.
set -eu
word() { cat "/run/secrets/$1_password"; }
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set owner="$(word owner)" --set app="$(word app)" --set registry="$(word registry)" <<'SQL'
CREATE ROLE mlcp_owner LOGIN PASSWORD :'owner';
CREATE ROLE mlcp_app LOGIN PASSWORD :'app';
CREATE ROLE mlflow LOGIN PASSWORD :'registry';
GRANT mlcp_app TO mlcp_owner;
CREATE DATABASE mlcp OWNER mlcp_owner ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE mlflow OWNER mlflow ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE mlcp, mlflow FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE mlcp TO mlcp_app;
SQL
