#!/bin/sh
# cases.sh: what programs.sh and saving.sh share; they read it with `.`, have
# the output folder in $O, and end with `cases_end`. Prints a line for each
# case that fails; with -v, one for those that pass, too.
verbose=${1:-}
passed=0
failed=0
rm -rf "$O"
mkdir -p "$O" || exit 2

# ok CASE: count what the last command said.
# shellcheck disable=SC2319  # of the command before the call
ok() {
    if [ $? -eq 0 ]; then
        passed=$((passed + 1))
        [ "$verbose" = -v ] && echo "ok: $1"
    else
        failed=$((failed + 1))
        echo "FAIL: $1"
        [ -s "$O/log" ] && sed 's/^/    /' "$O/log" | tail -n 8
    fi
    : > "$O/log"
    return 0
}

# value NAME FILE: the number of a result line.
value() { awk -v name="$1" '$1 == name && NF == 2 { print $2 }' "$2"; }

# within X LEAST MOST
within() {
    awk -v x="$1" -v a="$2" -v b="$3" \
        'BEGIN { exit !(x != "" && x + 0 == x && x >= a && x <= b) }'
}

# lose_folder JOB FOLDER: the folder that JOB writes to goes while it runs, and
# a file takes its place until a save has failed. Returns what JOB returns.
lose_folder() {
    kill -STOP "$1"
    rm -rf "$2"
    : > "$2"
    kill -CONT "$1"
    tries=0
    until grep -q 'not saved' "$O/log" || [ $tries -ge 200 ]; do
        tries=$((tries + 1))
        sleep 0.02
    done
    rm -f "$2"
    wait "$1"
}

# refuse CASE COMMAND...: exit code 2, one line on standard error that names
# the program (and bench's command), nothing on standard output, and no folder
# made.
refuse() {
    case=$1
    shift
    "$@" > "$O/stdout" 2> "$O/log" < /dev/null
    code=$?
    [ $code -eq 2 ] && [ ! -s "$O/stdout" ] && [ ! -e "$O/none" ] \
        && [ "$(wc -l < "$O/log")" -eq 1 ] \
        && grep -q "^${1##*/}\( [a-z]*\)*: " "$O/log"
    good=$?
    cp "$O/log" "$O/stderr"
    [ $good -eq 0 ]
    ok "$case: refused in one line (exit code $code)"
}

# steps FILE: the steps that a saved run has made.
steps() {
    head -c 20000 "$1" 2> /dev/null | tr ',' '\n' \
        | sed -n 's/.*"adam.step":"\([0-9]*\)".*/\1/p'
}

# until_log FOLDER: wait until a run has begun to train.
until_log() {
    tries=0
    while [ ! -e "$1/log.csv" ] && [ $tries -lt 200 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
}

cases_end() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
