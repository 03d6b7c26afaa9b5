#!/bin/sh
# Every fenced block of README.md, of examples/RESULTS.md and of the manual
# in splitmask.h works.
#   CC=cc sh tests/snippets.sh
#
#   C blocks   with a main: compiled without warnings and run. Others are
#              quotations (all their lines stand, in this order and without
#              a gap, in a file under examples/) or are compiled, at file
#              scope or as the body of a function, after the declarations in
#              `prelude` below.
#   sh blocks  each line names a target of the Makefile, a program of it
#              with options that its --help knows, a file, or a command
#   names      `examples/...` and `tests/...` in backticks are there
#
# Ends with `N passed, N failed`.
cd "$(dirname "$0")/.." || exit 2
: "${CC:=cc}"
B=build/snippets
rm -rf "$B"
mkdir -p "$B" out || exit 2
WARN="-std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic"
passed=0
failed=0

good() { passed=$((passed + 1)); echo "ok   $1"; }
bad() {
    failed=$((failed + 1))
    echo "FAIL $1"
    [ -n "$2" ] && sed 's/^/    /' "$2" | head -n 15
}

# blocks FILE LABEL: $B/LABEL.N.KIND, first line of the block in LABEL.list.
blocks() {
    awk -v b="$B/$2" '
        /^ *```/ {
            if (inside) {
                inside = 0
                close(file)
                next
            }
            inside = 1
            kind = $0
            sub(/^ *```/, "", kind)
            sub(/[^a-z].*/, "", kind)
            file = b "." (++n) "." (kind == "" ? "text" : kind)
            print n, (kind == "" ? "text" : kind), NR + 1 > (b ".list")
            printf "" > file
            next
        }
        inside { print > file }
        END { if (inside) print "0 open " NR > (b ".list") }' "$1"
    [ -f "$B/$2.list" ] || : > "$B/$2.list"
}

cat > "$B/prelude.h" << 'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "splitmask.h"
extern smask_ctx c, *ctx;
extern smask_desc desc;
extern smask_sizes sizes;
extern smask_vit vit;
extern smask_vit_desc model;
extern smask_tokenizer tok;
extern smask_tokenizer_desc codebook;
extern smask_adam adam;
extern smask_adam_desc optim;
extern smask_losses out;
extern smask_tensor *loss, *x, *y, *h, *w, *b;
extern float *images;
extern int32_t B;
extern int step;
END

# quoted FILE: do its lines stand together in an example?
quoted() {
    for example in examples/*.c examples/*.cpp examples/support/*.[ch]; do
        [ -f "$example" ] || continue
        awk '
            { sub(/^ +/, "") }
            FNR == NR { want[++n] = $0; next }
            {
                have[FNR] = $0
                last = FNR
            }
            END {
                for (i = 1; i + n - 1 <= last; i++) {
                    for (k = 1; k <= n && have[i + k - 1] == want[k]; k++)
                        ;
                    if (k > n) exit 0
                }
                exit 1
            }' "$1" "$example" && return 0
    done
    return 1
}

# c_block FILE WHERE
c_block() {
    log=$B/log
    if grep -Eq '(^|[^A-Za-z_])main *\(' "$1"; then
        # shellcheck disable=SC2086
        if ! $CC $WARN -O1 -I. -x c "$1" -o "$B/program" -lm -lpthread \
                > "$log" 2>&1 || [ -s "$log" ]; then
            bad "$2: does not compile cleanly" "$log"
        elif ! "$B/program" > "$log" 2>&1; then
            bad "$2: runs and fails" "$log"
        else
            good "$2: compiles and runs"
        fi
        return
    fi
    if quoted "$1"; then
        good "$2: is quoted from an example"
        return
    fi
    { cat "$B/prelude.h"; echo "#line 1"; cat "$1"; } > "$B/unit.c"
    # shellcheck disable=SC2086
    if $CC $WARN -Wno-unused -fsyntax-only -I. "$B/unit.c" > "$log" 2>&1
    then
        good "$2: compiles at file scope"
        return
    fi
    { cat "$B/prelude.h"; echo "void snippet(void);"
      echo "void snippet(void) {"; echo "#line 1"; cat "$1"; echo "}"
    } > "$B/unit.c"
    # shellcheck disable=SC2086
    if $CC $WARN -Wno-unused -fsyntax-only -I. "$B/unit.c" > "$log" 2>&1
    then
        good "$2: compiles in a function"
    else
        bad "$2: compiles neither alone nor in a function" "$log"
    fi
}

# sh_line LINE WHERE: one command with its arguments.
sh_line() {
    where=$2
    # shellcheck disable=SC2086  # into words
    set -- $1
    while :; do                          # VAR=value before the command
        case $1 in
        [A-Z]*=*) shift ;;
        *) break ;;
        esac
    done
    [ $# -gt 0 ] || return
    case $1 in
    make)
        shift
        for word in "$@"; do
            case $word in
            -*|*=*) continue ;;
            esac
            if ! make -n "$word" > "$B/log" 2>&1; then
                bad "$where: make $word: no such target" "$B/log"
                return
            fi
        done ;;
    build/*)
        program=$1
        shift
        if ! make -s "$program" > "$B/log" 2>&1; then
            bad "$where: $program cannot be made" "$B/log"
            return
        fi
        "$program" --help > "$B/help" 2>&1 || {
            bad "$where: $program --help fails" "$B/help"
            return
        }
        for word in "$@"; do
            case $word in
            --*) if ! grep -Eq -- "$word([^a-z-]|\$)" "$B/help"
                 then
                     bad "$where: $program does not know $word" "$B/help"
                     return
                 fi ;;
            esac
        done ;;
    sh)
        if [ ! -f "$2" ]; then
            bad "$where: no file $2" ""
            return
        fi ;;
    *)
        if ! command -v "$1" > /dev/null 2>&1 && [ ! -f "$1" ]; then
            bad "$where: no command $1" ""
            return
        fi ;;
    esac
    good "$where: $1"
}

# sh_block FILE WHERE: lines, continued ones joined, comments off.
sh_block() {
    awk '
        { sub(/^ *\$ /, "") }
        /\\$/ { sub(/\\$/, ""); held = held $0; next }
        { $0 = held $0; held = "" }
        { sub(/(^| )#.*/, "") }
        /[^ ]/ { n = split($0, part, / *(&&|;|\|) */)
            for (i = 1; i <= n; i++) print part[i] }' "$1" > "$B/lines"
    while read -r line; do
        sh_line "$line" "$2" < /dev/null
    done < "$B/lines"
}

for file in splitmask.h README.md examples/RESULTS.md; do
    if [ ! -f "$file" ]; then
        echo "skip $file: not there"
        continue
    fi
    label=${file##*/}
    label=${label%.*}
    blocks "$file" "$label"
    while read -r number kind line; do
        where="$file:$line"
        case $kind in
        c) c_block "$B/$label.$number.$kind" "$where" ;;
        sh|console) sh_block "$B/$label.$number.$kind" "$where" ;;
        open) bad "$file: a fenced block has no end" "" ;;
        *) echo "note $where: a block of kind $kind is not tried" ;;
        esac
    done < "$B/$label.list"
    tr '`' '\n' < "$file" | sed -n \
        's/^\(\(examples\|tests\)\/[A-Za-z0-9_./]*\)$/\1/p' | sort -u \
        > "$B/names"
    while read -r name; do
        if [ -e "$name" ]; then
            good "$file: names $name"
        else
            bad "$file: names $name, which is not there" ""
        fi
    done < "$B/names"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
