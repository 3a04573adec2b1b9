#!/bin/sh
# What the Postgres image's entrypoint does of it: a cluster with a password, then the scripts of its first start.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --encoding UTF8 --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" \
        --auth-local trust --auth-host scram-sha-256 > /dev/null
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl --pgdata "$PGDATA" --wait --options "-c listen_addresses='' -k /var/run/postgresql" start > /dev/null
    PGHOST=/var/run/postgresql sh /docker-entrypoint-initdb.d/roles.sh
    pg_ctl --pgdata "$PGDATA" --wait stop > /dev/null
fi
exec postgres -D "$PGDATA" -c "listen_addresses=*" -k /var/run/postgresql
