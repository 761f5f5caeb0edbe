#!/usr/bin/env bash
# The private cluster below .local: a Unix socket that only its owner (and root) reach, no TCP port.
#
#   cluster.sh start           make it where it is missing, start it where it is down
#   cluster.sh stop | restart | status
#   cluster.sh reload-library  restart it, but only where the postmaster itself has loaded the extension
#   cluster.sh dsn             a libpq connection string
#   cluster.sh psql [ARGS…]    psql on the database copymatch
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
action=${1:-status}
shift || true

# Not by kill -0, as pg_ctl does: that also finds a killed server that nobody has reaped yet, or a stranger who got its
# process id. The program file behind the id tells.
is_running() {
    local pid
    pid=$(head -n 1 "$DATA/postmaster.pid" 2>/dev/null) && [ -n "$pid" ] &&
        [[ "$(readlink "/proc/$pid/exe" 2>/dev/null)" == */postgres* ]]
}

# A dead server that its parent never reaps (a container whose first process does not) would block PostgreSQL's own
# check of the pid file for ever. Its children need a moment to notice that it is gone.
forget_dead_server() {
    local pid
    pid=$(head -n 1 "$DATA/postmaster.pid" 2>/dev/null) || return 0
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if [ ! -d "/proc/$pid" ]; then return; fi
        sleep 0.3
    done
    if grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status"; then rm -f "$DATA/postmaster.pid"; fi
}

# A socket's path may have 107 bytes: a clone in a deep folder keeps its socket under /tmp.
socket_dir() {
    local folder=$LOCAL/run name=$LOCAL/socket-dir
    # One for each major: their servers may run at the same time.
    if [ "$PG_MAJOR" != 15 ]; then folder+=-$PG_MAJOR name+=-$PG_MAJOR; fi
    if [ ${#folder} -gt 80 ]; then
        folder=$(cat "$name" 2>/dev/null || true)
        if [ -z "$folder" ] && [ "$1" = make ]; then
            folder=$(mktemp -d /tmp/copymatch-XXXXXX)
            printf '%s\n' "$folder" >"$name"
        fi
    fi
    printf '%s\n' "$folder"
}

own() { # own FOLDER: a folder of the server's user alone
    mkdir -p "$1"
    chmod 700 "$1"
    if [ "$(id -u)" -eq 0 ]; then chown "$SERVER_USER:" "$1"; fi
}

create() {
    say "creating the cluster $DATA"
    rm -rf "$DATA.new"
    own "$DATA.new"
    as_server "$PG_BIN/initdb" --pgdata="$DATA.new" --username=postgres --auth=trust --data-checksums --encoding=UTF8 \
        --locale=C.UTF-8 --no-instructions >"$LOCAL/initdb.log" 2>&1 || {
        cat "$LOCAL/initdb.log" >&2
        die "initdb failed"
    }
    as_server tee -a "$DATA.new/postgresql.conf" >/dev/null <<'CONF'

# copymatch's private cluster
listen_addresses = ''
unix_socket_permissions = 0700
log_line_prefix = '%m [%p] %d '
timezone = 'UTC'
log_timezone = 'UTC'
fsync = on
CONF
    mv "$DATA.new" "$DATA"
}

# No descriptor of ours may stay open in the server, or whoever reads our output waits for ever.
launch() {
    as_server "$PG_BIN/pg_ctl" start -D "$DATA" -w -t 60 -s -l "$LOG/postgresql-$PG_MAJOR.log" \
        -o "-c unix_socket_directories='$1'" </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
}

start() {
    prepare_local
    [ -x "$PG_BIN/postgres" ] || die "no private server in $PREFIX; run make setup"
    local run
    run=$(socket_dir make)
    if [ ! -s "$DATA/PG_VERSION" ]; then create; fi
    if ! is_running; then
        own "$run"
        own "$LOG"
        forget_dead_server
        say "starting the cluster (socket in $run, log in $LOG)"
        # A second try: children of a server that was killed may need a moment to notice and to let go.
        launch "$run" || { sleep 3 && launch "$run"; } || {
            tail -n 20 "$LOG/postgresql-$PG_MAJOR.log" >&2 || true
            die "the cluster did not start; the end of its log is above"
        }
    fi
}

stop() {
    if [ -x "$PG_BIN/pg_ctl" ] && is_running; then
        say "stopping the cluster"
        # One that dies by itself in this moment is stopped as well.
        as_server "$PG_BIN/pg_ctl" stop -D "$DATA" -w -t 60 -m fast -s || ! is_running
    fi
}

case $action in
    start) start ;;
    stop)
        stop
        # What a test run that was killed left beside it (tests/conftest.py).
        for beside in "$LOCAL"/beside/*/; do
            if [ -d "$beside" ]; then COPYMATCH_LOCAL=${beside%/} "$ROOT/scripts/cluster.sh" stop; fi
        done
        ;;
    restart)
        stop
        start
        ;;
    status)
        if is_running; then
            say "running as $SERVER_USER, socket in $(socket_dir look), data in $DATA"
        else
            say "not running"
            exit 3
        fi
        ;;
    reload-library)
        if is_running && as_server "$PG_BIN/psql" -XAtq -h "$(socket_dir look)" -U postgres -d postgres \
            -c 'SHOW shared_preload_libraries' | grep -qw copymatch; then
            stop
            start
        fi
        ;;
    dsn) printf "host=%s user=postgres dbname=copymatch\n" "$(socket_dir look)" ;;
    psql)
        start
        run=$(socket_dir look)
        if ! "$PG_BIN/psql" -XAtq -h "$run" -U postgres -d postgres \
            -c "SELECT 1 FROM pg_database WHERE datname = 'copymatch'" | grep -q 1; then
            "$PG_BIN/psql" -Xq -h "$run" -U postgres -d postgres -c 'CREATE DATABASE copymatch'
        fi
        PGOPTIONS='-c client_min_messages=warning' "$PG_BIN/psql" -Xq -h "$run" -U postgres -d copymatch \
            -c 'CREATE EXTENSION IF NOT EXISTS copymatch'
        exec "$PG_BIN/psql" -h "$run" -U postgres -d copymatch "$@"
        ;;
    *) die "unknown action '$action': start, stop, restart, status, reload-library, dsn or psql" ;;
esac
