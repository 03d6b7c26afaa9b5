#!/bin/sh
# The header under every compiler, language, macro and level that is there:
# no warning, and tests/smoke.c has to pass. Then sanitizers, 32 bits, NEON.
#   sh tests/matrix.sh [PATTERN]      PATTERN picks rows by their names, as
#                                     `sh tests/matrix.sh gcc_c99`
#
#   -O0        gcc and clang x C99, C11, C++11, C++20 x each macro of
#              >>options alone, none, and all together
#   -O3 -Os -ffast-math
#              gcc and clang x the macros that change what is computed, each
#              alone; those that only cut something off, together; none; all.
#              The languages take turns.
#   guards     tests with unreadable pages around the operands, at -O3
#   sanitizers address, undefined, memory and thread, where the compiler has
#              them, on the tests that reach most of the code
#   targets    -m32; the processor's own flags; aarch64 under qemu
#
# No macro may change a public struct: all rows of a target have to print
# the same sizes. What is not installed is skipped with a line that says so.
# About ten minutes on two cores. Ends with `N passed, N failed`.
cd "$(dirname "$0")/.." || exit 2
B=build/matrix
rm -rf "$B"
mkdir -p "$B/jobs" out || exit 2
pattern=${1:-.}
begin=$(date +%s)
WARN="-Wall -Wextra -Wpedantic -Wconversion -Wshadow"
number=0

has() { command -v "$1" > /dev/null 2>&1; }
skip() { echo "skip $*"; }

# can COMPILER FLAG...: does it make a program that runs here?
can() {
    echo 'int main(void) { return 0; }' > "$B/can.c"
    "$@" "$B/can.c" -o "$B/can" > /dev/null 2>&1 && "$B/can" 2> /dev/null
}

# job NAME COMMAND...: one row; $B/jobs/NUMBER.sh does it.
job() {
    echo "$1" | grep -q -e "$pattern" || return
    number=$((number + 1))
    echo "$1" > "$B/jobs/$number.name"
    shift
    echo "$*" > "$B/jobs/$number.sh"
}

# --------------------------------------------------------------- the rows

ALONE="SPLITMASK_STATIC SPLITMASK_NO_SIMD SPLITMASK_NO_DISPATCH
SPLITMASK_CBLAS SPLITMASK_THREADS SPLITMASK_NO_MALLOC SPLITMASK_NO_STDIO
SPLITMASK_NO_AUTOGRAD SPLITMASK_NO_TEXT SPLITMASK_DEBUG"
COMPUTE="SPLITMASK_NO_SIMD SPLITMASK_NO_DISPATCH SPLITMASK_CBLAS
SPLITMASK_NO_AUTOGRAD SPLITMASK_DEBUG"
CUT="-DSPLITMASK_STATIC -DSPLITMASK_THREADS -DSPLITMASK_NO_MALLOC
-DSPLITMASK_NO_STDIO -DSPLITMASK_NO_TEXT"
ALL=
for macro in $ALONE; do ALL="$ALL -D$macro"; done

# language NAME: flags, and in $suffix a name for the row.
language() {
    case $1 in
    c99) flags="-std=c99 -Wstrict-prototypes"; posix=1 ;;
    c11) flags="-std=c11 -Wstrict-prototypes"; posix=1 ;;
    c++11) flags="-x c++ -std=c++11"; posix=0 ;;
    c++20) flags="-x c++ -std=c++20"; posix=0 ;;
    esac
    [ "$posix" -eq 1 ] && flags="$flags -D_POSIX_C_SOURCE=200809L"
}

# smoke NAME COMPILER FLAGS...
smoke() {
    name=$1
    shift
    job "$name" "smoke '' $* $WARN -I. -Itests tests/smoke.c"
}

compilers=
for pair in gcc:g++ clang:clang++; do
    if ! has "${pair%:*}"; then
        skip "${pair%:*}: not installed"
        continue
    fi
    compilers="$compilers ${pair%:*}"
    has "${pair#*:}" || skip "C++ with ${pair#*:}: not installed"
done

compiler_for() {                         # COMPILER LANGUAGE
    case $1$2 in
    gccc++*) echo g++ ;;
    clangc++*) echo clang++ ;;
    *) echo "$1" ;;
    esac
}

# Words that headers of other systems define as macros: see tests/lint.sh.
HOSTS="-Dsmall=char -Dhyper=int -Dinterface=struct -Dnear= -Dfar= -Dhuge=
-DIN= -DOUT= -DERROR=0 -DBool=int -DStatus=int -DNone=0L -DB0=0 -DECHO=8
-Dmajor=gnu_dev_major -Dminor=gnu_dev_minor -DI=_Complex_I -DPI=3"

for compiler in $compilers; do
    language c99
    # shellcheck disable=SC2086
    smoke "${compiler}_c99_host_macros" "$compiler $flags -O0" $HOSTS
    for lang in c99 c11 c++11 c++20; do
        driver=$(compiler_for "$compiler" "$lang")
        has "$driver" || continue
        language "$lang"
        row="${compiler}_${lang}_O0"
        smoke "${row}_none" "$driver $flags -O0"
        smoke "${row}_SMASK_API" "$driver $flags -O0" \
            "'-DSMASK_API=extern __attribute__((visibility(\"default\")))'"
        for macro in $ALONE; do
            smoke "${row}_$macro" "$driver $flags -O0 -D$macro"
        done
        smoke "${row}_all" "$driver $flags -O0 $ALL"
    done
    turn=0
    for level in -O3 -Os "-O2 -ffast-math"; do
        for set in none $COMPUTE cut all; do
            case $((turn % 4)) in
            0) lang="c99" ;;
            1) lang=c++11 ;;
            2) lang=c11 ;;
            3) lang=c++20 ;;
            esac
            turn=$((turn + 1))
            driver=$(compiler_for "$compiler" "$lang")
            has "$driver" || { lang="c99"; driver=$compiler; }
            language "$lang"
            case $set in
            none) macros= ;;
            cut) macros=$CUT ;;
            all) macros=$ALL ;;
            *) macros=-D$set ;;
            esac
            row="${compiler}_${lang}_$(echo "$level" | tr -d ' -')_$set"
            # shellcheck disable=SC2086  # one line is meant
            smoke "$row" $driver $flags $level $macros
        done
    done
done

# This processor's own flags, with and without the choice at run time.
for compiler in $compilers; do
    can "$compiler" -march=native || continue
    language c99
    smoke "${compiler}_native" "$compiler $flags -O2 -march=native"
    smoke "${compiler}_native_NO_DISPATCH" \
        "$compiler $flags -O2 -march=native -DSPLITMASK_NO_DISPATCH"
done

# 32 bits: size_t is 4 bytes.
for compiler in $compilers; do
    if can "$compiler" -m32; then
        language c99
        smoke "m32_${compiler}" "$compiler -m32 $flags -O1"
        smoke "m32_${compiler}_all" "$compiler -m32 $flags -O1 $ALL"
        job "m32_${compiler}_basics" "alone basics $compiler -m32 $flags -O1"
    else
        skip "-m32 with $compiler: no 32-bit libc here"
    fi
done

# NEON.
arm=aarch64-linux-gnu-gcc
if ! has $arm; then
    skip "aarch64: no $arm"
elif ! has qemu-aarch64; then
    skip "aarch64: no qemu-aarch64"
else
    language c99
    job aarch64 "smoke qemu-aarch64 $arm -static $flags -O2 $WARN -I." \
        "-Itests tests/smoke.c"
    job aarch64_NO_SIMD "smoke qemu-aarch64 $arm -static $flags -O1" \
        "-DSPLITMASK_NO_SIMD $WARN -I. -Itests tests/smoke.c"
fi

# Roundings and sums whose order matters: what -ffast-math
# might take apart.
for compiler in $compilers; do
    language c99
    job "${compiler}_ffast_math_kernels" \
        "linked kernels $compiler $flags -O2 -ffast-math"
done

# What optimisers make of loads beside the last element: the tests whose
# operands end at a page that cannot be read, at the highest level.
for compiler in $compilers; do
    language c99
    job "${compiler}_O3_guards" "linked 'gemm kernels' $compiler $flags -O3"
done

# Sanitizers: the library and these tests, all instrumented. At -O0, since
# with checks in every line the inlined kernels compile for minutes.
TESTS="memory tape masks train"
ASAN="-g -O0 -fsanitize=address,undefined -fno-sanitize-recover=all"
for compiler in $compilers; do
    language c99
    case $compiler in
    gcc) ASAN=-fsanitize=address,undefined ;;
    *) ASAN=-fsanitize=undefined ;;      # it knows what gcc does not: 0 + 0
    esac
    if can "$compiler" $ASAN; then
        job "${compiler}_$(echo $ASAN | tr '=,' '__')" \
            "linked '$TESTS' $compiler $flags -g -O0 $ASAN" \
            -fno-sanitize-recover=all
    else
        skip "$ASAN with $compiler"
    fi
done
if has clang && can clang -fsanitize=memory; then
    language c99
    job clang_-fsanitize_memory \
        "linked '$TESTS' clang $flags -g -O1 -fsanitize=memory"
else
    skip "-fsanitize=memory: needs clang and its runtime"
fi
if has gcc && can gcc -fsanitize=thread; then
    language c99
    job gcc_-fsanitize_thread \
        "linked 'threads train' gcc $flags -g -O1 -fsanitize=thread"
else
    skip "-fsanitize=thread with gcc"
fi

# --------------------------------------------------------- how rows are run
# The commands of the rows. Each writes to $log and returns whether all was
# well; $here is the row's own directory.

# smoke RUNNER COMPILER...: build without a word, run.
run_smoke() {
    runner=$1
    shift
    "$@" -o "$here/smoke" -lm -lpthread > "$log" 2>&1 || return 1
    [ ! -s "$log" ] || { echo "warnings are failures" >> "$log"; return 1; }
    # shellcheck disable=SC2086  # may be empty
    $runner "$here/smoke" > "$log" 2>&1
}

# linked TESTS COMPILER...: the library once, each test with it.
run_linked() {
    tests=$1
    shift
    printf '%s\n' '#define SPLITMASK_THREADS' \
        '#define SPLITMASK_IMPLEMENTATION' '#include "splitmask.h"' \
        > "$here/library.c"
    "$@" -I. -c "$here/library.c" -o "$here/library.o" > "$log" 2>&1 \
        || return 1
    status=0
    for test in $tests; do
        source=tests/test_$test.c
        [ -f "$source" ] || continue
        with=$here/library.o             # some hold the implementation
        grep -q '^#define SPLITMASK_IMPLEMENTATION' "$source" && with=
        # shellcheck disable=SC2086  # may be empty
        if ! "$@" -I. -Itests "$source" $with -o "$here/$test" -lm \
                -lpthread >> "$log" 2>&1; then
            status=1
        elif ! "$here/$test" >> "$log" 2>&1; then
            status=1
        fi
    done
    return $status
}

# alone TEST COMPILER...: a test that holds the implementation.
run_alone() {
    test=$1
    shift
    "$@" -I. -Itests "tests/test_$test.c" -o "$here/test" -lm > "$log" 2>&1 \
        && "$here/test" > "$log" 2>&1
}

worker() {
    n=0
    while [ $n -lt $number ]; do
        n=$((n + 1))
        mkdir "$B/jobs/$n" 2> /dev/null || continue
        here=$B/jobs/$n
        log=$here/log
        : > "$log"
        if eval "run_$(cat "$B/jobs/$n.sh")"; then
            echo ok > "$B/jobs/$n.verdict"
        else
            echo FAIL > "$B/jobs/$n.verdict"
        fi
        rm -f "$here/smoke" "$here/library.o"
    done
}

echo "$number rows"
worker &
worker
wait

# ------------------------------------------------------------------- tell

passed=0
failed=0
n=0
while [ $n -lt $number ]; do
    n=$((n + 1))
    name=$(cat "$B/jobs/$n.name")
    if [ "$(cat "$B/jobs/$n.verdict" 2> /dev/null)" = ok ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $name: $(cat "$B/jobs/$n.sh")"
        grep -vE '^ +(\||[0-9]+ \|)' "$B/jobs/$n/log" | head -n 12 \
            | cut -c 1-160 | sed 's/^/    /'
    fi
    target=x86
    case $name in
    m32*) target=m32 ;;
    aarch64*) target=aarch64 ;;
    esac
    sed -n 's/^sizes //p' "$B/jobs/$n/log" >> "$B/sizes.$target"
done
for sizes in "$B"/sizes.*; do
    [ -f "$sizes" ] || continue
    kinds=$(sort -u "$sizes" | wc -l)
    if [ "$kinds" -gt 1 ]; then
        failed=$((failed + 1))
        echo "FAIL a macro changes the size of a public struct:"
        sort "$sizes" | uniq -c
    elif [ "$kinds" -eq 1 ]; then
        passed=$((passed + 1))
    fi
done
echo "the matrix took $(($(date +%s) - begin)) s"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
