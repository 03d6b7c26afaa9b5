#!/bin/sh
# What `make bench` runs: sh tests/bench/bench.sh CC CBLAS DNNL, from the top.
#   CBLAS  name of a CBLAS to link and to run in turns with ours, such as
#          openblas; DNNL=1 does the same with oneDNN's sgemm.
# Without either: a short tour of what the library reaches by itself.
# THREADS (default "1" and all cores) and REPEAT (default 5) may be set.
set -eu
CC=${1:-cc}
CBLAS=${2:-}
DNNL=${3:-}
REPEAT=${REPEAT:-5}
CORES=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
if [ "$CORES" -gt 1 ]; then
    THREADS=${THREADS:-"1 $CORES"}
else
    THREADS=${THREADS:-1}
fi

say() { echo; echo "== $*"; }

if [ -z "$CBLAS" ] && [ -z "$DNNL" ]; then
    B=build/bench
    for t in $THREADS; do
        say "$t thread(s)"
        $B gemm --suite vit --threads "$t" --repeat "$REPEAT"
        $B attention --threads "$t" --repeat "$REPEAT"
        $B step --model micro --threads "$t" --steps "$REPEAT" --profile
        $B step --model tiny --threads "$t" --steps "$REPEAT"
        $B forward --model tiny --threads "$t" --steps "$REPEAT"
    done
    exit 0
fi

FLAGS=
LIBS="-lm -lpthread"
NAME=build/bench
WITH=
if [ -n "$CBLAS" ]; then
    FLAGS="$FLAGS -DBENCH_CBLAS"
    case $CBLAS in
    *openblas*) FLAGS="$FLAGS -DBENCH_OPENBLAS" ;;
    esac
    LIBS="-l$CBLAS $LIBS"
    NAME="${NAME}_$CBLAS"
    WITH="$WITH $CBLAS"
fi
if [ -n "$DNNL" ]; then
    FLAGS="$FLAGS -DBENCH_DNNL"
    LIBS="-ldnnl $LIBS"
    NAME="${NAME}_dnnl"
    WITH="$WITH dnnl"
fi

# shellcheck disable=SC2086  # several words are meant
if ! $CC -std=c99 -D_POSIX_C_SOURCE=200809L -O2 -I. ${BENCH_CFLAGS:-} \
        $FLAGS tests/bench/*.c build/splitmask.o build/options.o \
        build/progress.o -o "$NAME" ${BENCH_LDFLAGS:-} $LIBS \
        2> build/bench_peer.log; then
    sed -n 1,5p build/bench_peer.log >&2
    echo "bench: cannot build with$WITH: install its development package" \
        "(Debian: libopenblas-dev, libdnnl-dev), or set BENCH_CFLAGS and" \
        "BENCH_LDFLAGS to where it is" >&2
    exit 2
fi

# OpenBLAS goes by the processor's model number and falls back to SSE on one
# it does not know; the flags say what there is. Of the two kernel sets that
# can be meant, the faster one is taken. A value that is set stands.
if [ -n "$CBLAS" ] && [ -z "${OPENBLAS_CORETYPE:-}" ] \
        && grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
    TYPES=Haswell
    if grep -qw avx512vl /proc/cpuinfo && grep -qw avx512dq /proc/cpuinfo
    then
        TYPES="SkylakeX Haswell"
    fi
    BEST=0
    for type in $TYPES; do
        speed=$(OPENBLAS_CORETYPE=$type OPENBLAS_NUM_THREADS=1 \
            OMP_NUM_THREADS=1 "$NAME" gemm --m 1568 --n 1152 --k 384 \
            --trans NT --threads 1 --repeat 5 \
            | awk '$1 == "gflops_cblas" { print int($2) }')
        echo "# cblas with OPENBLAS_CORETYPE=$type: ${speed:-0} GFLOP/s"
        if [ "${speed:-0}" -gt "$BEST" ]; then
            BEST=$speed
            OPENBLAS_CORETYPE=$type
        fi
    done
    export OPENBLAS_CORETYPE
fi

# OpenBLAS's idle threads spin for 2^26 cycles, some 25 ms, before they sleep;
# they would hold a core while the next one runs. 2^22 is still far longer
# than the time between two products.
OPENBLAS_THREAD_TIMEOUT=${OPENBLAS_THREAD_TIMEOUT:-22}
export OPENBLAS_THREAD_TIMEOUT

for t in $THREADS; do
    say "$t thread(s), against$WITH"
    OPENBLAS_NUM_THREADS=$t OMP_NUM_THREADS=$t \
        "$NAME" gemm --suite vit --threads "$t" --repeat "$REPEAT"
done
