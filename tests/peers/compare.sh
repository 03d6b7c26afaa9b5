#!/bin/sh
# Ours and PyTorch's training step in turns: both programs are started once
# and warmed, then each runs a few steps while the other waits. Medians of
# the turns, their ratio, and the memory beyond weights, gradients, moments.
#
#   sh tests/peers/compare.sh [step|forward|all]        from the top
#
# Settings, by environment:
#   PYTHON   with torch 1.13 or later               [/usr/bin/python3]
#   ONNX     a python with onnxruntime, onnx, numpy [none: left out]
#   BLAS     folder put before the system's libraries, for an OpenBLAS that
#            shares torch's OpenMP: one built for OpenMP, not for pthreads
#   THREADS  ["1 2"]   TURNS [5]   STEPS a turn [2]
#   MODELS   ["micro tiny small"]  METHODS ["splitmask beit"]
#   BATCHES  of forward ["1 16"]   BENCH [build/bench]
#   ISA    of ours [auto]; bf16: not comparable, torch uses float
set -u
WHAT=${1:-all}
PYTHON=${PYTHON:-/usr/bin/python3}
ONNX=${ONNX:-}
BLAS=${BLAS:-}
THREADS=${THREADS:-"1 2"}
TURNS=${TURNS:-5}
STEPS=${STEPS:-2}
MODELS=${MODELS:-"micro tiny small"}
METHODS=${METHODS:-"splitmask beit"}
BATCHES=${BATCHES:-"1 16"}
BENCH=${BENCH:-build/bench}
ISA=${ISA:-auto}
PEERS=tests/peers
export PYTHONDONTWRITEBYTECODE=1

case $WHAT in step|forward|all) ;; *)
    echo "compare.sh: '$WHAT' is not step, forward or all" >&2
    exit 2 ;;
esac
if [ ! -x "$BENCH" ]; then
    echo "compare.sh: there is no $BENCH: run make first" >&2
    exit 2
fi
if ! "$PYTHON" -c 'import torch' 2>/dev/null; then
    echo "compare.sh: $PYTHON has no torch: set PYTHON" >&2
    exit 2
fi
if [ -n "$ONNX" ] && ! "$ONNX" -c 'import onnxruntime, onnx' 2>/dev/null
then
    echo "compare.sh: $ONNX has no onnxruntime or onnx: set ONNX" >&2
    exit 2
fi

TMP=${TMPDIR:-/tmp}/compare.$$
mkdir "$TMP" || exit 2
trap 'rm -rf "$TMP"' EXIT
trap 'exit 130' INT TERM

torch() {
    if [ -n "$BLAS" ]; then
        LD_LIBRARY_PATH="$BLAS:${LD_LIBRARY_PATH:-}" "$PYTHON" "$@"
    else
        "$PYTHON" "$@"
    fi
}

# median FILE: of the numbers after "ms"
median() {
    awk '$1 == "ms" { print $2 }' "$1" | sort -g | awk '{ x[NR] = $1 }
        END {
            low = int((NR + 1) / 2)
            high = int(NR / 2) + 1
            if (NR) print (x[low] + x[high]) / 2
        }'
}

value() { awk -v n="$2" '$1 == n { print $2 }' "$1" | tail -n 1; }

# wait_for N FILE PID: until FILE has N lines that are "ready" or "ms"
wait_for() {
    while [ "$(grep -cE '^(ready|ms )' "$2")" -lt "$1" ]; do
        if ! kill -0 "$3" 2>/dev/null; then
            echo "compare.sh: a program stopped early:" >&2
            tail -n 3 "$2" >&2
            exit 1
        fi
        sleep 0.02
    done
}

# take_turns: the commands in $A, $B and (perhaps) $C
take_turns() {
    rm -f "$TMP"/[abc]*
    mkfifo "$TMP/a.in" "$TMP/b.in" "$TMP/c.in"
    # shellcheck disable=SC2086
    $A < "$TMP/a.in" > "$TMP/a" 2>&1 &
    PA=$!
    exec 3> "$TMP/a.in"
    wait_for 1 "$TMP/a" "$PA"
    # shellcheck disable=SC2086
    $B < "$TMP/b.in" > "$TMP/b" 2>&1 3>&- &
    PB=$!
    exec 4> "$TMP/b.in"
    wait_for 1 "$TMP/b" "$PB"
    if [ -n "$C" ]; then
        # shellcheck disable=SC2086
        $C < "$TMP/c.in" > "$TMP/c" 2>&1 3>&- 4>&- &
        PC=$!
        exec 5> "$TMP/c.in"
        wait_for 1 "$TMP/c" "$PC"
    fi
    turn=1
    while [ "$turn" -le "$TURNS" ]; do
        turn=$((turn + 1))
        echo go >&3
        wait_for $turn "$TMP/a" "$PA"
        echo go >&4
        wait_for $turn "$TMP/b" "$PB"
        if [ -n "$C" ]; then
            echo go >&5
            wait_for $turn "$TMP/c" "$PC"
        fi
    done
    exec 3>&- 4>&-
    if [ -n "$C" ]; then exec 5>&-; fi
    wait
}

steps() {
    printf '# %-9s %-6s %s %10s %10s %6s %9s %9s %6s\n' method model t \
        "ours im/s" "torch im/s" ratio "ours MB" "torch MB" share
    for method in $METHODS; do for model in $MODELS; do
    for t in $THREADS; do
        case $model in
        micro) batch=128; rest="--image 32 --patch 4 --vocab 1024" ;;
        tiny) batch=64; rest="--image 32 --patch 4 --vocab 8192" ;;
        *) batch=8; rest="--image 224 --patch 16 --vocab 8192" ;;
        esac
        rest="$rest --method $method --model $model --batch $batch"
        rest="$rest --threads $t --steps $STEPS --serve"
        A="$BENCH step $rest --isa $ISA"
        B="torch $PEERS/torch_step.py $rest --warm 2"
        C=
        take_turns
        show_settings
        awk -v a="$(median "$TMP/a")" -v b="$(median "$TMP/b")" \
            -v n="$batch" -v method="$method" -v model="$model" -v t="$t" \
            -v ours="$(value "$TMP/a" step_bytes)" \
            -v peak="$(value "$TMP/b" peak_mb)" \
            -v start="$(value "$TMP/b" start_mb)" \
            -v kept="$(value "$TMP/b" kept_mb)" 'BEGIN {
            theirs = peak - start - kept
            printf "  %-9s %-6s %d %10.2f %10.2f %6.3f %9.1f %9.1f %6.3f\n",
                method, model, t, 1e3 * n / a, 1e3 * n / b, b / a,
                ours / 1e6, theirs, ours / 1e6 / theirs
            printf "ratio_%s_%s_%d %.4f\n", method, model, t, b / a
            printf "memory_share_%s_%s_%d %.4f\n", method, model, t,
                ours / 1e6 / theirs }'
    done; done; done
}

# Once: what the peers really ran.
show_settings() {
    if [ -z "${shown:-}" ]; then
        grep '^#' "$TMP/b"
        if [ -n "$C" ]; then grep '^#' "$TMP/c"; fi
        shown=1
    fi
}

forwards() {
    shown=
    printf '# %-6s %5s %s %10s %10s %10s %6s\n' model batch t "ours im/s" \
        "torch" "onnx" ratio
    for model in tiny small; do for batch in $BATCHES; do
    for t in $THREADS; do
        rest="--model $model --batch $batch --threads $t --serve"
        A="$BENCH forward $rest --image 224 --patch 16 --steps 5 \
--isa $ISA"
        B="torch $PEERS/torch_forward.py $rest --repeat 5"
        C=
        if [ -n "$ONNX" ]; then
            C="$ONNX $PEERS/onnx_forward.py $rest --repeat 5"
        fi
        take_turns
        show_settings
        o=$(if [ -n "$C" ]; then median "$TMP/c"; fi)
        awk -v a="$(median "$TMP/a")" -v b="$(median "$TMP/b")" \
            -v o="$o" -v n="$batch" -v model="$model" -v t="$t" 'BEGIN {
            best = b
            onnx = "-"
            if (o != "") {
                onnx = sprintf("%.2f", 1e3 * n / o)
                if (o + 0 < b + 0) best = o
            }
            printf "  %-6s %5d %d %10.2f %10.2f %10s %6.3f\n", model, n, t,
                1e3 * n / a, 1e3 * n / b,
                onnx, best / a
            printf "ratio_forward_%s_%d_%d %.4f\n", model, n, t, best / a }'
    done; done; done
}

case $WHAT in
step) steps ;;
forward) forwards ;;
all) steps; forwards ;;
esac
