#!/usr/bin/env bash
# Every fuzz target below crates/*/fuzz, SECONDS each, one after the other, by cargo-fuzz (pinned) on the stable
# toolchain, without a sanitizer: what it looks for are panics, arithmetic that overflows, assertions of the targets,
# time and memory beyond bounds.
#
#   fuzz.sh SECONDS [TARGET…]    0 seconds: the seeds and what earlier runs found, once each
#
# It starts from fuzz/seeds (ours, committed; scripts/fuzz_seeds.py made them). What it finds stays in fuzz/corpus; an
# input that ends a target, in fuzz/artifacts. The last line is `N executions, M wrong`.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
seconds=${1:?how many seconds for each target?}
shift
case $seconds in *[!0-9]*) die "SECONDS is '$seconds': a number" ;; esac
chosen=" $* "

"$ROOT/scripts/packages.sh" fuzz
mkdir -p "$TOOLS/bin"
if [ "$("$TOOLS/bin/cargo-fuzz" fuzz --version 2>/dev/null)" != "cargo-fuzz $CARGO_FUZZ_VERSION" ]; then
    say "compiling cargo-fuzz $CARGO_FUZZ_VERSION (once, a minute)"
    CARGO_TARGET_DIR=$CARGO_TARGET_DIR/tools-build CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug \
        --root "$TOOLS" "cargo-fuzz@=$CARGO_FUZZ_VERSION"
    rm -rf "$CARGO_TARGET_DIR/tools-build"
fi
# cargo-fuzz asks for flags that only a nightly compiler takes by itself. One folder for all: the
# crates share what they need.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$CARGO_TARGET_DIR/fuzz
PATH=$TOOLS/bin:$PATH
options=(--sanitizer none)

longest() { # longest TARGET: the size beyond which a longer input only takes longer
    case $1 in
        text | binary) echo 4096 ;;
        sketch) echo 8192 ;;
        *) echo 65536 ;;
    esac
}

executions=0 wrong=()
for folder in "$ROOT"/crates/*/fuzz; do
    cd "$folder/.."
    for source in fuzz/fuzz_targets/*.rs; do
        target=$(basename "$source" .rs)
        if [ $# -gt 0 ] && [[ $chosen != *" $target "* ]]; then continue; fi
        crate=$(basename "$(dirname "$folder")")
        mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
        cargo fuzz build "${options[@]}" "$target" >"$LOCAL/fuzz-$target.log" 2>&1 || {
            tail -n 20 "$LOCAL/fuzz-$target.log" >&2
            die "$crate's target $target does not compile"
        }
        more=(-max_total_time="$seconds")
        if [ "$seconds" -eq 0 ]; then more=(-runs=0); fi
        status=0
        cargo fuzz run "${options[@]}" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- "${more[@]}" \
            -max_len="$(longest "$target")" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
            >"$LOCAL/fuzz-$target.log" 2>&1 || status=$?
        done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$LOCAL/fuzz-$target.log" | tail -1)
        edges=$(grep -oE 'cov: [0-9]+' "$LOCAL/fuzz-$target.log" | tail -1 || true)
        seeds=$(find "fuzz/seeds/$target" -type f | wc -l)
        printf '%-10s %-15s %12s executions  %12s edges  from %3s seeds\n' \
            "$crate" "$target" "${done:-?}" "${edges#cov: }" "$seeds"
        executions=$((executions + ${done:-0}))
        if [ "$status" -ne 0 ]; then
            wrong+=("$target")
            grep -E -e '^(thread|ERROR|SUMMARY|==[0-9]+==|assertion|Test unit written|artifact_prefix)' \
                -e 'panicked|^ *left:|^ *right:' \
                "$LOCAL/fuzz-$target.log" | head -n 12
        fi
    done
done
[ ${#wrong[@]} -eq 0 ] ||
    say "wrong: ${wrong[*]}; the inputs are in crates/*/fuzz/artifacts, what was said in $LOCAL/fuzz-TARGET.log"
printf '%s executions, %s wrong\n' "$executions" "${#wrong[@]}"
[ ${#wrong[@]} -eq 0 ]
