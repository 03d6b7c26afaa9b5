#!/bin/sh
# Build and run the small examples. Each returns non-zero when what it
# demonstrates does not hold; this script adds nothing to that but a line.
#   sh tests/examples.sh [-v]      -v prints what the examples print
cd "$(dirname "$0")/.." || exit 2
case "$#$1" in
0|1-v) ;;
*)  echo "examples.sh: unknown option; usage: sh tests/examples.sh [-v]" >&2
    exit 2 ;;
esac

names="01_tape 02_gradcheck 03_user_op 04_plan 05_patches 06_tokenizers
07_attention 08_beit 09_splitmask 10_probe 11_threads 12_inference
14_files 15_own_images"
if command -v "${CXX:=c++}" > /dev/null 2>&1; then
    names="$names 13_cplusplus"
else
    echo "skip 13_cplusplus: no C++ compiler ($CXX)"
fi

mkdir -p out || exit 2
log=out/examples.log
passed=0
failed=0
for name in $names; do
    begin=$(date +%s)
    if ! MAKEFLAGS= make -s CC="${CC:-cc}" CXX="$CXX" "build/$name" \
        > "$log" 2>&1; then
        verdict="FAIL (build)"
    elif [ -s "$log" ]; then
        verdict="FAIL (warnings)"
    elif "build/$name" > "$log" 2>&1; then
        verdict=ok
    else
        verdict="FAIL (exit $?)"
    fi
    end=$(date +%s)
    echo "$name: $verdict, $((end - begin)) s"
    if [ "$verdict" = ok ]; then
        passed=$((passed + 1))
        [ "$1" = -v ] && cat "$log"
    else
        failed=$((failed + 1))
        cat "$log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
