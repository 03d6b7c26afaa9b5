#!/bin/sh
# The test suite: CC=cc CXX=c++ sh tests/run.sh [NAME...]
#
# Builds and runs every tests/test_*.c, then tests/examples.sh and, where they
# are there, tests/programs.sh and tests/saving.sh, and ends with one line:
# `N passed, N failed`. What is counted are test functions (see tests/test.h),
# examples and the cases of the programs. A test that does not build, warns or
# dies counts as one failure. NAME picks tests: `sh tests/run.sh gemm tape`.
#
# A test that defines SPLITMASK_IMPLEMENTATION stands alone; all others are
# linked with the objects of the programs. Needs a C compiler and make; the
# parts in C++ are left out, with a note, where there is no C++ compiler.
cd "$(dirname "$0")/.." || exit 2
: "${CC:=cc}"
: "${CXX:=c++}"
WARN="-Wall -Wextra -Wpedantic -Wconversion -Wshadow"
C="-std=c99 -D_POSIX_C_SOURCE=200809L $WARN -Wstrict-prototypes"
LIBS="-lm -lpthread"
B=build/tests
passed=0
failed=0
begin=$(date +%s)
mkdir -p "$B" out || exit 2

# tally LOG: the numbers of all lines `test_NAME: N passed, N failed`, or of
# the last line without a name.
tally() {
    line=$(awk '
        / passed, [0-9]+ failed/ {
            if ($1 ~ /^test_.*:$/) { p += $2; f += $4; named = 1 }
            else if ($1 ~ /^[0-9]+$/) { p1 = $1; f1 = $3 }
        }
        END { print named ? p + 0 " " f + 0 : p1 + 0 " " f1 + 0 }' "$1")
    p=${line% *}
    f=${line#* }
}

# report NAME STATUS LOG: one line, and the log on failure.
report() {
    tally "$3"
    if [ "$2" -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
        echo "$1: died with exit code $2" >> "$3"
    fi
    if [ "$2" -eq 0 ] && [ "$p" -eq 0 ] && [ "$f" -eq 0 ]; then
        f=1
        echo "$1: tested nothing" >> "$3"
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    if [ "$f" -ne 0 ]; then
        echo "$1: FAIL ($p passed, $f failed)"
        sed 's/^/    /' "$3" | tail -n 60
    else
        echo "$1: ok ($p)"
        sed -n 's/^skip/    skip/p' "$3"
    fi
}

# build_one NAME: compile tests/test_NAME.c silently or print why not.
build_one() {
    source=tests/test_$1.c
    if grep -q '^#define SPLITMASK_IMPLEMENTATION' "$source"; then
        with=
    else
        with=$objects
    fi
    # shellcheck disable=SC2086  # several words are meant
    $CC $C -O2 -I. -Itests "$source" $with -o "$B/$1" $LIBS \
        > "$B/$1.log" 2>&1 && [ ! -s "$B/$1.log" ]
}

# test_one NAME: build, run; the log and the exit code stay in $B.
test_one() {
    if build_one "$1"; then
        "$B/$1" > "$B/$1.log" 2>&1
        echo $? > "$B/$1.code"
    else
        echo "test_$1: does not build without warnings" >> "$B/$1.log"
        echo 1 > "$B/$1.code"
    fi
}

# Two units, and the same from C++: built in two ways each, see the sources.
# both NAME COMMAND...: compile to $B/NAME, run, add up in NAME.log.
both() {
    name=$1
    shift
    # shellcheck disable=SC2086
    if "$@" -o "$B/$name" $LIBS > "$B/$name.out" 2>&1 \
            && [ ! -s "$B/$name.out" ]; then
        "$B/$name" > "$B/$name.out" 2>&1 || code=1
    else
        echo "$name: does not build without warnings" >> "$B/$name.out"
        code=1
    fi
    cat "$B/$name.out" >> "$log"
}

units() {
    log=$B/units.log
    code=0
    # shellcheck disable=SC2086
    both units $CC $C -O1 -I. -Itests tests/test_units_a.c \
        tests/test_units_b.c
    # shellcheck disable=SC2086
    both units_static $CC $C -O1 -DUNITS_STATIC -I. -Itests \
        tests/test_units_a.c tests/test_units_b.c
    echo $code > "$B/units.code"
}

cxx() {
    log=$B/cxx.log
    code=0
    # shellcheck disable=SC2086
    both cxx $CXX -std=c++11 $WARN -O1 -I. -Itests tests/test_cxx.cpp
    # shellcheck disable=SC2086
    both cxx_link $CXX -std=c++11 $WARN -O1 -DCXX_LINK -I. -Itests \
        tests/test_cxx.cpp build/splitmask.o
    echo $code > "$B/cxx.code"
}

# ------------------------------------------------------- what is to be done

names=
if [ $# -gt 0 ]; then
    for name in "$@"; do
        name=${name#tests/}
        name=${name#test_}
        name=${name%.c}
        if [ "$name" != units ] && [ "$name" != cxx ] \
                && [ ! -f "tests/test_$name.c" ]; then
            echo "run.sh: no tests/test_$name.c; there are:" \
                tests/test_*.c >&2
            exit 2
        fi
        names="$names $name"
    done
else
    for source in tests/test_*.c; do
        name=${source#tests/test_}
        case $name in
        units_*) ;;
        *) names="$names ${name%.c}" ;;
        esac
    done
    names="$names units cxx"
fi
if ! command -v "$CXX" > /dev/null 2>&1; then
    case "$names " in
    *" cxx "*) echo "skip test_cxx: no C++ compiler ($CXX)" ;;
    esac
    names=$(echo "$names " | sed 's/ cxx / /')
fi

objects=
for source in examples/support/*.c; do
    object=${source##*/}
    objects="$objects build/${object%.c}.o"
done
# shellcheck disable=SC2086
if ! make -s CC="$CC" $objects > "$B/objects.log" 2>&1; then
    cat "$B/objects.log"
    echo "run.sh: the objects of the programs do not build" >&2
    echo "0 passed, 1 failed"
    exit 1
fi

# --------------------------------------------------------------- run them
# Two workers; making a directory is how one of them claims a test.

worker() {
    for name in $names; do
        mkdir "$B/$name.claim" 2> /dev/null || continue
        case $name in
        units) units ;;
        cxx) cxx ;;
        *) test_one "$name" ;;
        esac
    done
}

for name in $names; do
    rm -rf "$B/$name.claim" "$B/$name.code" "$B/$name.log"
done
worker &
worker
wait
for name in $names; do
    report "test_$name" "$(cat "$B/$name.code" 2> /dev/null || echo 1)" \
        "$B/$name.log"
done

if [ $# -eq 0 ]; then
    for script in examples programs saving; do
        [ -f "tests/$script.sh" ] || continue
        CC=$CC CXX=$CXX sh "tests/$script.sh" > "$B/$script.log" 2>&1
        report "$script.sh" $? "$B/$script.log"
    done
fi

echo "tests took $(($(date +%s) - begin)) s"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
