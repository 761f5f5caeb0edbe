#!/usr/bin/env bash
# The training recipe's commands, in order, with their places filled in. train/README.md says what each one does.
#
#   train.sh smoke   every part of the recipe on 300 pictures: the machinery runs
#   train.sh test    the package's own tests
#   train.sh train   the default model: pictures, training, export, background, calibration, into MODEL
#   train.sh eval    MODEL on the detection benchmark: ONNX Runtime with Pillow, then inside PostgreSQL, and both must agree
#
#   TRAIN_PYTHON   a Python that has what requirements-train.txt lists (default: .local/train-venv, made on first use)
#   TRAIN_DATA     folder with the training pictures' tar shards and train.csv (default ../shared/data)
#   TRAIN_CONFIG   configurations of `train`, each starting from the one before (default: those of the default model)
#   BENCHMARK      folder of the detection benchmark (default ../shared/bench/detection)
#   MODEL          folder of the model (default models/default for eval, train/runs/model for train)
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"
data=${TRAIN_DATA:-../shared/data}
benchmark=${BENCHMARK:-../shared/bench/detection}
config=${TRAIN_CONFIG:-train/configs/small.yaml train/configs/small-anneal.yaml train/configs/small-again.yaml train/configs/default.yaml}

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
checkpoint() { printf 'train/runs/%s/checkpoint.pt\n' "$(basename "$1" .yaml)"; }

fit() { step fit "$1" "$(dirname "$(checkpoint "$1")")"; }

case ${1:-} in
    smoke)
        need_data
        [ -e train/runs/pictures-smoke/index.json ] || step pictures "$data" train/runs/pictures-smoke --limit 300
        rm -rf train/runs/smoke
        fit train/configs/smoke.yaml
        step export train/configs/smoke.yaml train/runs/smoke-model --checkpoint "$(checkpoint smoke)"
        ;;
    test) "$TRAIN_PYTHON" -m pytest -q train/tests ;;
    train)
        need_data
        model=${MODEL:-train/runs/model}
        [ -e train/runs/pictures/index.json ] || step pictures "$data" train/runs/pictures
        # Each run starts from the whitened weights, or from the weights, of the one before.
        for last in $config; do
            fit "$last"
            whitened=train/runs/$(basename "$last" .yaml)/whitened.pt
            [ "$whitened" -nt "$(checkpoint "$last")" ] || step whiten "$last" "$(checkpoint "$last")" "$whitened"
        done
        step export "$last" "$model" --checkpoint "$whitened"
        step background "$last" "$model"
        step calibrate "$last" "$model"
        ;;
    eval)
        [ -d "$benchmark" ] || die "no detection benchmark in $benchmark; set BENCHMARK"
        model=${MODEL:-models/default}
        figures=$(mktemp)
        trap 'rm -f "$figures"' EXIT
        step evaluate "$model" "$benchmark" --speed --out "$figures"
        # The extension's own decoding, resizing, search and stretching, on the private server.
        "$ROOT/scripts/setup.sh"
        say "extension $model $benchmark"
        COPYMATCH_DSN=$("$ROOT/scripts/cluster.sh" dsn) "$VENV/bin/python" -m copymatch_train.extension "$model" "$benchmark" --against "$figures"
        ;;
    *) die "train.sh smoke, test, train or eval" ;;
esac
