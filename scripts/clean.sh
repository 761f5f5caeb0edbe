#!/usr/bin/env bash
# Stops the private cluster and removes the private folder, if it is one.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

wanted=${COPYMATCH_LOCAL:-$ROOT/.local}
if [ ! -e "$LOCAL" ]; then
    if [ -L "$wanted" ]; then rm -f "$wanted"; fi
    exit 0
fi
[ -e "$LOCAL/.copymatch" ] || die "$LOCAL was not made by copymatch's set-up; not removing it"
for data in "$LOCAL"/data-* "$LOCAL"/beside/*/data-*; do
    case $data in
        *.new | *'*') continue ;;
    esac
    COPYMATCH_LOCAL=$(dirname "$data") PG_CONFIG='' PG_MAJOR=${data##*-} "$ROOT/scripts/cluster.sh" stop
done
for name in "$LOCAL"/socket-dir* "$LOCAL"/beside/*/socket-dir*; do
    socket_dir=$(cat "$name" 2>/dev/null || true)
    case $socket_dir in
        /tmp/copymatch-??????) rm -rf "$socket_dir" ;;
    esac
done
rm -rf "$LOCAL"
if [ -L "$wanted" ]; then rm -f "$wanted"; fi
say "removed $LOCAL"
