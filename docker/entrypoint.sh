#!/usr/bin/env bash
# Runs as the user postgres. The first start makes the cluster and, in the database copymatch, the extension.
#
#   COPYMATCH_PASSWORD_FILE   file with the password of the role postgres (compose: a secret)
#   COPYMATCH_PASSWORD        or the password itself
# Without either, only the socket inside the container is open.
set -euo pipefail
data=${PGDATA:-/var/lib/copymatch/data}
bin=/usr/lib/postgresql/15/bin

password=${COPYMATCH_PASSWORD:-}
if [ -n "${COPYMATCH_PASSWORD_FILE:-}" ]; then password=$(<"$COPYMATCH_PASSWORD_FILE"); fi
unset COPYMATCH_PASSWORD

if [ ! -s "$data/PG_VERSION" ]; then
    "$bin/initdb" -D "$data" -U postgres --auth-local=trust --auth-host=scram-sha-256 --data-checksums --encoding=UTF8 \
        --locale=C.UTF-8 --no-instructions
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    "$bin/pg_ctl" start -D "$data" -w -s -o "-c listen_addresses=''"
    "$bin/psql" -Xq -v ON_ERROR_STOP=1 -U postgres -d postgres -c 'CREATE DATABASE copymatch'
    "$bin/psql" -Xq -v ON_ERROR_STOP=1 -U postgres -d copymatch -c 'CREATE EXTENSION copymatch'
    if [ -n "$password" ]; then
        # Through psql's quoting on standard input: neither in the process list nor open to injection.
        COPYMATCH_NEW=$password "$bin/psql" -Xq -v ON_ERROR_STOP=1 -U postgres -d postgres <<'SQL'
\getenv password COPYMATCH_NEW
ALTER ROLE postgres PASSWORD :'password';
SQL
    fi
    "$bin/pg_ctl" stop -D "$data" -w -s -m fast
fi

listen=
if [ -n "$password" ]; then listen='*'; fi
unset password
exec "$bin/postgres" -D "$data" -c "listen_addresses=$listen" "$@"
