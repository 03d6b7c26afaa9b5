#!/bin/sh
# Rules that a compiler does not check.
#   CC=cc sh tests/lint.sh [FILE]        FILE: splitmask.h
#
#   text      80 columns, no tabs, no trailing blanks, no reminders, none of
#             the private words; the numbered examples fit three pages;
#             the Makefile lists every source
#   chapters  which chapter may call, include, allocate, read files or name
#             an instruction set; the calls that banners list are right
#   interface every public function has a comment and is defined in the
#             chapter it is listed under; nothing else is exported
#   object    no writable data, no other symbols than libc's and libm's
#   macros    all begin with SMASK_ or SPLITMASK_, or are undefined again
#
# Ends with `N passed, N failed`. Needs awk, nm and a C compiler.
cd "$(dirname "$0")/.." || exit 2
: "${CC:=cc}"
H=${1:-splitmask.h}
B=build/lint
if [ ! -f "$H" ] || [ $# -gt 1 ]; then
    echo "lint.sh: no such file: $H; usage: sh tests/lint.sh [FILE]" >&2
    exit 2
fi
for tool in "$CC" nm awk; do
    if ! command -v "${tool%% *}" > /dev/null 2>&1; then
        echo "lint.sh: needs $tool" >&2
        exit 2
    fi
done
mkdir -p "$B" || exit 2
passed=0
failed=0

# verdict NAME FILE: a rule holds when FILE, its list of offences, is empty.
verdict() {
    if [ -s "$2" ]; then
        failed=$((failed + 1))
        echo "FAIL $1"
        sed 's/^/    /' "$2" | head -n 25
        lines=$(wc -l < "$2")
        [ "$lines" -gt 25 ] && echo "    ... $lines lines in all"
    else
        passed=$((passed + 1))
        echo "ok   $1"
    fi
}

# ----------------------------------------------------------------- text

sources=$(find "$H" examples tests -type f \( -name '*.[ch]' \
    -o -name '*.cpp' -o -name '*.sh' -o -name '*.py' \) | sort)

# shellcheck disable=SC2086  # a list of names
awk 'length > 80 { print FILENAME ":" FNR ": " length " columns" }' \
    $sources > "$B/columns"
verdict "80 columns" "$B/columns"
awk 'FNR == 151 { print FILENAME ": more than 150 lines" }' \
    examples/[0-9]* > "$B/long"
verdict "the numbered examples have at most 150 lines" "$B/long"
# shellcheck disable=SC2086
awk '/\t/ { print FILENAME ":" FNR ": tab" }
    /[ \r]$/ { print FILENAME ":" FNR ": blank at the end" }' \
    $sources > "$B/blanks"
verdict "no tabs, no blanks at the end of a line" "$B/blanks"
# The words are split because this file is searched, too.
# shellcheck disable=SC2086
grep -nEw "TO""DO|FIX""ME|XX""X|HACK""Y|place""holder" \
    $sources > "$B/words"
verdict "no reminders" "$B/words"

# Words that were renamed and may not return, one or more a line. They count
# as whole words and as parts of a name, with a capital or without. Old keys
# of files and old options stay, so these are removed from a line before the
# search. The header's list of changes names what was renamed.
cat > "$B/private" << 'END'
slope slopes crew hand hands bell twin twins spot pen ink slab bridge lanes
smask__least smask__most smask__over smask__up smask__area
smask__say smask__tell smask__blame smask__refuse
smask__room smask__brief smask__turn smask__turned
smask__slot smask__home smask__lacks smask__each smask__note
smask__view_of smask__go_back smask__keep_only smask__made smask__done
END
private=$(find "$H" README.md examples tests -type f \( -name '*.[ch]' \
    -o -name '*.cpp' -o -name '*.sh' -o -name '*.py' -o -name '*.md' \) \
    ! -path 'tests/fixtures/reference_*.h' ! -path tests/lint.sh | sort)
# shellcheck disable=SC2086
awk '
    FNR == NR { for (i = 1; i <= NF; i++) banned[$i] = 1; next }
    FNR == 1 { history = 0 }
    /^   CHANGES  / { history = 1 }
    /^   LICENCE  / { history = 0 }
    history { next }
    {
        rest = $0
        gsub(/decoder\.bridge\.|no_bridge|--no-bridge|--lanes/, " ", rest)
        while (match(rest, /[A-Za-z_][A-Za-z0-9_]*/)) {
            word = substr(rest, RSTART, RLENGTH)
            rest = substr(rest, RSTART + RLENGTH)
            word = tolower(substr(word, 1, 1)) substr(word, 2)
            parts = split(word, part, "_")
            for (i = 1; i <= parts; i++)
                if (tolower(part[i]) in banned) word = tolower(part[i])
            if (word in banned) print FILENAME ":" FNR ": " word
        }
    }' "$B/private" $private > "$B/returned"
verdict "private words" "$B/returned"

# The Makefile: a source without its line is not compiled again when it
# changes, one that no list names is not compiled at all.
# shellcheck disable=SC2016  # $B is make's
makefile=$(sed -e :a -e '/\\$/{N;s/\\\n//;ba' -e '}' \
    -e 's/\$B/tests\/bench/g' Makefile)
: > "$B/makefile"
listed() {                           # LIST WORD SOURCE
    printf '%s\n' "$makefile" | grep "^$1 = " | grep -qF " $2" \
        || echo "Makefile: $1 lacks $2" >> "$B/makefile"
    [ -z "$3" ] || printf '%s\n' "$makefile" | grep -qxF "$2: $3" \
        || echo "Makefile: no line \`$2: $3\`" >> "$B/makefile"
}
for source in examples/support/*.c examples/*.c tests/bench/*.c; do
    name=${source##*/}
    name=${name%.c}
    case $source in
    examples/support/splitmask.c) listed OBJECTS "build/$name.o" "$source" ;;
    examples/support/*) listed SUPPORT "build/$name.o" "$source" ;;
    examples/[0-9]*) listed SMALL "build/$name" "$source" ;;
    examples/*) listed PROGRAMS "build/$name" "$source" ;;
    *) listed BENCH "$source" "" ;;
    esac
done
verdict "the Makefile lists every source and names it at its target" \
    "$B/makefile"

# ------------------------------------------------- the header, taken apart
# code: `line <tab> chapter <tab> code` without comments and strings. A
# chapter begins at its banner; M is the manual, 0 the interface, E the end.

awk '
    BEGIN { chapter = "M"; inside = 0 }
    {
        raw = $0
        if (raw ~ /^   PART II /) chapter = "0"
        if (raw ~ /^   PART III /) chapter = "1"
        if (raw ~ /^   PART IV /) chapter = "P"
        if (raw ~ /^   PART V /) chapter = "E"
        if (before ~ /^\/\* =====/ && raw ~ /^   [0-9]+  [A-Z]/) {
            split(raw, word, " ")
            chapter = word[1]
        }
        before = raw
        out = ""
        n = length(raw)
        for (i = 1; i <= n; i++) {
            two = substr(raw, i, 2)
            one = substr(raw, i, 1)
            if (inside) {
                if (two == "*/") { inside = 0; i++ }
            } else if (two == "/*") {
                inside = 1
                i++
                out = out " "
            } else if (two == "//") {
                break
            } else if (one == "\"" || one == "\047") {
                for (j = i + 1; j <= n; j++) {
                    c = substr(raw, j, 1)
                    if (c == "\\") j++
                    else if (c == one) break
                }
                out = out one one
                i = j
            } else {
                out = out one
            }
        }
        print NR "\t" chapter "\t" out
    }' "$H" > "$B/code"

# functions: `name chapter line kind`: def, or dec for what ends in `;`.
# SMASK__N(x) stands for smask__x_KIND, once per instruction set.
awk -F '\t' '
    function flush(  text, name) {
        if (whole == "") return
        text = whole
        sub(/[{;].*/, "", text)
        gsub(/__attribute__ *\(\([^)]*\)+/, "", text)
        if (text ~ /SMASK__N\([a-z0-9_]+\) *\(/) {
            match(text, /SMASK__N\([a-z0-9_]+\)/)
            name = "smask__" substr(text, RSTART + 9, RLENGTH - 10) "_KIND"
        } else if (match(text, /[A-Za-z_][A-Za-z0-9_]* *\(/)) {
            name = substr(text, RSTART, RLENGTH)
            sub(/ *\($/, "", name)
        } else {
            whole = ""
            return
        }
        print name, chapter, line, (whole ~ /\{/ ? "def" : "dec")
        whole = ""
    }
    $3 ~ /^(SMASK__DEF|SMASK__FN|SMASK__INLINE|SMASK_API|static) / {
        whole = ""
        line = $1
        chapter = $2
        whole = $3
        if (whole ~ /=/) whole = ""          # a table, not a function
        if (whole ~ /[{;]/) flush()
        next
    }
    whole != "" {
        whole = whole " " $3
        if ($3 ~ /[{;]/) flush()
    }' "$B/code" > "$B/functions"

count=$(grep -c 'def$' "$B/functions")
: > "$B/parsed"
[ "$count" -ge 100 ] \
    || echo "only $count functions were found: is this $H?" > "$B/parsed"
verdict "$H can be taken apart ($count functions)" "$B/parsed"

# --------------------------------------------------------------- chapters

# calls: `line chapter name where-it-is-defined`, for every mention of a
# function in a chapter other than its own. A function that chapter 4, the
# contract, declares belongs to it, wherever it is defined; so does smask_gemm.
awk '
    BEGIN { home["smask_gemm"] = 4 }
    FNR == NR {
        if ($4 == "def" && !($1 in home)) home[$1] = $2
        if ($4 == "dec" && $2 == "4") home[$1] = $2
        next
    }
    {
        line = $0
        sub(/\t.*/, "", line)
        rest = $0
        sub(/^[0-9]*\t/, "", rest)
        chapter = rest
        sub(/\t.*/, "", chapter)
        sub(/^[^\t]*\t/, "", rest)
        if (chapter !~ /^[0-9]+$/ || chapter == "0") next
        if (rest ~ /^#/) next
        while (match(rest, /SMASK__CALL *\([^,()]*(\([^()]*\))?[^,()]*, */)) {
            rest = substr(rest, RSTART + RLENGTH)
            match(rest, /^[a-z0-9_]+/)
            name = "smask__" substr(rest, RSTART, RLENGTH) "_KIND"
            if (!(name in home))
                print line, chapter, name, "missing"
            else if (home[name] != chapter)
                print line, chapter, name, home[name]
        }
        rest = $0
        sub(/^[0-9]*\t[^\t]*\t/, "", rest)
        while (match(rest, /[A-Za-z_][A-Za-z0-9_]*/)) {
            name = substr(rest, RSTART, RLENGTH)
            rest = substr(rest, RSTART + RLENGTH)
            if (name in home && home[name] != chapter)
                print line, chapter, name, home[name]
        }
    }' "$B/functions" "$B/code" > "$B/calls"

awk -v h="$H" '
    $4 == "missing" { print h ":" $1 ": " $3 " is called and not there" }
    $4 ~ /^[0-9]+$/ && $4 + 0 > $2 + 0 && $3 != "smask__backward_one" {
        print h ":" $1 ": chapter " $2 " calls " $3 " of chapter " $4
    }' "$B/calls" > "$B/upward"
verdict "no chapter calls a later one" "$B/upward"
awk -v h="$H" '
    $2 + 0 >= 15 && $4 ~ /^[0-9]+$/ && $4 + 0 > 4 {
        print h ":" $1 ": chapter " $2 " calls " $3 " of chapter " $4
    }' "$B/calls" > "$B/engine"
verdict "the engine calls chapters 1 to 4 only" "$B/engine"

# What each banner says: `chapter may list` and `chapter by list`.
awk '
    /^   [0-9]+  [A-Z]/ && before ~ /^\/\* =====/ { chapter = $1; on = 1 }
    /=====.*\*\// { on = 0 }
    on && /May call/ {
        may = $0
        sub(/.*May call */, "", may)
        by = may
        sub(/ *Called by.*/, "", may)
        sub(/.*Called by */, "", by)
        print chapter, "may", may
        print chapter, "by", by
    }
    { before = $0 }' "$H" > "$B/banners"

# A list is numbers, "3 to 7", and "all" for whatever is allowed anyway.
awk -v h="$H" '
    function spread(text, set, chapter, which,  i, k, n, word) {
        gsub(/[,.()]/, " ", text)
        n = split(text, word, " ")
        for (i = 1; i <= n; i++) {
            if (word[i] == "all")
                for (k = 1; k <= 17; k++) set[chapter, which, k] = 1
            if (word[i] !~ /^[0-9]+$/) continue
            set[chapter, which, word[i]] = 1
            if (word[i + 1] == "to")
                for (k = word[i] + 0; k <= word[i + 2] + 0; k++)
                    set[chapter, which, k] = 1
        }
    }
    FNR == NR {
        text = $0
        sub(/^[0-9]+ [a-z]+ /, "", text)
        spread(text, says, $1, $2)
        told[$1] = 1
        next
    }
    $4 ~ /^[0-9]+$/ && $4 != "0" && $4 + 0 < $2 + 0 {
        if (!told[$2]) print h ": chapter " $2 " has no `May call`"
        else if (!(($2, "may", $4) in says) && !seen[$2, "may", $4]++)
            print h ":" $1 ": chapter " $2 " calls " $3 " of chapter " $4 \
                ", but its banner has no " $4 " under `May call`"
        if (told[$4] && !(($4, "by", $2) in says) && !seen[$4, "by", $2]++)
            print h ":" $1 ": chapter " $2 " calls " $3 " of chapter " $4 \
                ", whose banner has no " $2 " under `Called by`"
    }' "$B/banners" "$B/calls" > "$B/told"
verdict "banners list calls and callers" "$B/told"

# Every banner answers the same questions.
awk -v h="$H" '
    /^   [0-9]+  [A-Z]/ && before ~ /^\/\* =====/ {
        chapter = $1
        chapters++
        if ($0 !~ />>[a-z][a-z-]*$/) print h ":" NR ": no anchor"
        question = idea = may = 0
        on = 1
    }
    on && /^   Question / { question = 1 }
    on && /^   Idea / { idea = 1 }
    on && /^   May call / { may = 1 }
    on && /=====.*\*\// {
        on = 0
        if (!question) print h ": chapter " chapter ": no Question"
        if (!idea) print h ": chapter " chapter ": no Idea"
        if (!may) print h ": chapter " chapter ": no May call"
    }
    { before = $0 }
    END { if (chapters != 17) print h ": " chapters " chapters, not 17" }
    ' "$H" > "$B/shape"
verdict "banners have their shape" "$B/shape"

# Anchors: what is referred to is there. A heading has its anchor at the end
# of a ruled line, below one, or after a title in capitals.
awk -v h="$H" '
    {
        heading = ($0 ~ /^   [A-Z][A-Z ]+ +>>[a-z-]+$/ \
            || (($0 ~ /-----/ || before ~ /-----|=====|#####/) \
            && $0 ~ />>[a-z-]+( -*\*\/)?$/))
        text = $0
        while (match(text, />>[a-z][a-z-]*/)) {
            name = substr(text, RSTART, RLENGTH)
            text = substr(text, RSTART + RLENGTH)
            if (heading) there[name]++
            else if (!(name in first)) first[name] = NR
        }
        before = $0
    }
    END {
        for (name in first)
            if (!(name in there))
                print h ":" first[name] ": " name " leads nowhere"
        for (name in there)
            if (there[name] > 1) print h ": " name " is there twice"
    }' "$H" > "$B/anchors"
verdict "anchors lead somewhere" "$B/anchors"

# Private functions are defined before use, so that an upward call does not
# compile, except for the contract of chapter 4, and one function: the walk
# back calls the ops' derivatives, which are recorded on the tape.
awk -v h="$H" '
    $4 == "dec" && $2 != "0" && $2 != "4" && $1 != "smask__backward_one" {
        print h ":" $3 ": " $1 " is declared ahead of its definition"
    }
    $4 == "def" && $2 + 0 >= 15 { there[$1] = 1 }
    $4 == "dec" && $2 == "4" { line[$1] = $3 }
    END {
        for (name in line)
            if (!(name in there))
                print h ":" line[name] ": " name " is not in the engine"
    }' "$B/functions" > "$B/ahead"
verdict "only the contract declares private functions ahead" "$B/ahead"

# banned RULE PATTERN CHAPTERS: PATTERN, in code, outside these chapters.
banned() {
    awk -F '\t' -v h="$H" -v pattern="$2" -v allowed=" $3 " '
        $2 == "M" || $2 == "E" || index(allowed, " " $2 " ") { next }
        {
            text = " " $3 " "
            if (match(text, "[^A-Za-z0-9_](" pattern ")[^A-Za-z0-9_]"))
                print h ":" $1 ": chapter " $2 ":" \
                    substr(text, RSTART, RLENGTH)
        }' "$B/code" > "$B/banned"
    verdict "$1" "$B/banned"
}

print='printf|fprintf|sprintf|snprintf|vprintf|puts|putchar|fputs|perror'
print="$print|fopen|fclose|fseek|open|stdin|stdout|stderr"
end='exit|_Exit|_exit|abort|raise|signal|longjmp|setjmp|system|errno'
world='getenv|setenv|setlocale|time|clock|clock_gettime|gettimeofday'
unsafe='rand|srand|alloca|strtok|gets|strcpy|strcat|scanf|sscanf'
banned "no printing, ending, asking the environment or the clock" \
    "$print|$end|$world|$unsafe" ""
banned "the allocator is chapter 2's" \
    'malloc|calloc|realloc|free|aligned_alloc|posix_memalign|stdlib' "2"
banned "assert is chapter 1's" 'assert' "1"
banned "tensors begin with chapter 7" 'smask_tensor' "0 7 8 9 10 11 12 13 14"
banned "files are chapter 14's" \
    'smask_io|smask_file|smask_file_entry|FILE|fread|fwrite' "0 14"

# Chapters 9 to 12 never touch a raw gradient; smask_params_zero, which sets
# them all to 0, is listed with the parameters and so stands in 9.
awk '
    FNR == NR {
        if ($4 == "def") begin[$3] = $1
        next
    }
    {
        split($0, part, "\t")
        if (part[1] in begin) inside = begin[part[1]]
        if (part[2] !~ /^(9|10|11|12)$/ || inside == "smask_params_zero")
            next
        if (part[3] ~ /[^A-Za-z0-9_]dx[^A-Za-z0-9_]/)
            print "line " part[1] ": " inside " in chapter " part[2]
    }' "$B/functions" "$B/code" > "$B/gradients"
verdict "models and objectives leave raw gradients alone" "$B/gradients"

banned "threads are chapter 16's" 'pthread_[a-z_]+|sched_yield|sysconf' "16"
x86='_mm[0-9]*_[a-z0-9_]+|__m(128|256|512)[a-z]*|__mmask[0-9]+'
x86="$x86|__get_cpuid[a-z_]*"
arm='v[a-z0-9]+q_[a-z0-9_]+|float32x[0-9]_t|wasm_[a-z0-9_]+|vector_size'
told='__(AVX|SSE|FMA|ARM|aarch64|x86)[A-Za-z0-9_]*'
banned "instruction sets are chapter 17's" "$x86|$arm|$told" "17"
# windows.h, complex.h, termios.h, sys/sysmacros.h, X11, AssertMacros.h, and
# compilers without -std. tests/matrix.sh compiles with some of them defined.
hosts='min|max|near|far|small|hyper|interface|pascal|cdecl|huge|I|complex'
hosts="$hosts|B0|B50|ECHO|major|minor|makedev|unix|linux|i386|vms|sun"
hosts="$hosts|IN|OUT|OPTIONAL|ERROR|CONST|VOID|TRUE|FALSE|BOOL|CALLBACK"
hosts="$hosts|Bool|Status|None|Always|Success|True|False|check|verify|require"
hosts="$hosts|bool|and|or|not|xor|PI|Yield|index_|bzero|TEXT|DELETE|STRICT"
banned "names that other headers define as macros" "$hosts" ""

# Includes: <header> and the chapters that may.
awk -F '\t' -v h="$H" '
    BEGIN {
        may["stddef.h"] = may["stdint.h"] = may["stdio.h"] = " 0 "
        may["math.h"] = may["string.h"] = " 1 "
        may["assert.h"] = " 1 "
        may["stdlib.h"] = " 2 "
        may["immintrin.h"] = may["cpuid.h"] = may["arm_neon.h"] = " 17 "
        may["wasm_simd128.h"] = " 17 "
        may["pthread.h"] = may["sched.h"] = may["unistd.h"] = " 16 "
    }
    $3 ~ /^# *include *</ {
        name = $3
        sub(/.*</, "", name)
        sub(/>.*/, "", name)
        if (index(may[name], " " $2 " ") == 0)
            print h ":" $1 ": <" name "> in chapter " $2
    }' "$B/code" > "$B/includes"
verdict "system headers only where they belong" "$B/includes"

# -------------------------------------------------------------- interface

# Every prototype has a comment: right above it, or above the group without
# blank lines to which it belongs.
awk -v h="$H" '
    /^   PART II / { on = 1 }
    /^   PART III / { on = 0 }
    !on { next }
    /^ *$/ { told = 0 }
    /\*\// && !/----/ { told = 1 }
    /^SMASK_API / && !told { print h ":" NR ": " $0 }
    ' "$H" > "$B/comments"
verdict "every public function has a comment" "$B/comments"

# Listed under the number of the chapter that defines it; all are defined.
awk -v h="$H" '
    FNR == NR {
        if ($4 == "def" && $2 != "0") home[$1] = $2
        if ($4 == "dec" && $2 == "0") { line[$1] = $3; order[++n] = $1 }
        next
    }
    /^\/\* ---- [0-9]+  / { group[FNR] = $3; last = FNR }
    { under[FNR] = last ? group[last] : "" }
    END {
        for (i = 1; i <= n; i++) {
            name = order[i]
            if (!(name in home))
                print h ":" line[name] ": " name " is not defined"
            else if (home[name] != under[line[name]])
                print h ":" line[name] ": " name " is listed under " \
                    under[line[name]] ", defined in chapter " home[name]
        }
        for (name in home)
            if (name ~ /^smask_[^_]/ && !(name in line))
                print h ": " name " is defined, not declared"
    }' "$B/functions" "$H" > "$B/listed"
verdict "public functions are defined where they are listed" "$B/listed"

# Macros: they have the prefix or are undefined again. smask_setup is one on
# purpose: it passes the version that its caller was compiled against.
awk -F '\t' -v h="$H" '
    $3 ~ /^ *# *define/ {
        name = $3
        sub(/^ *# *define */, "", name)
        sub(/[^A-Za-z0-9_].*/, "", name)
        if (name !~ /^(SMASK_|SPLITMASK_|smask_setup$)/ && !(name in where))
            where[name] = $1
    }
    $3 ~ /^ *# *undef/ {
        name = $3
        sub(/^ *# *undef */, "", name)
        sub(/[^A-Za-z0-9_].*/, "", name)
        gone[name] = 1
    }
    END {
        for (name in where)
            if (!(name in gone))
                print h ":" where[name] ": " name " stays defined"
    }' "$B/code" > "$B/macros"
verdict "macros have the prefix or are undefined again" "$B/macros"

# ----------------------------------------------------------------- object

# compile NAME FLAGS: the implementation as $B/NAME.o.
compile() {
    name=$1
    shift
    # shellcheck disable=SC2086
    $CC -std=c99 -D_POSIX_C_SOURCE=200809L -O1 -fno-pic "$@" \
        -DSPLITMASK_IMPLEMENTATION -I"$(dirname "$H")" \
        -x c -c "$B/unit.c" -o "$B/$name.o" 2> "$B/$name.log" || {
        echo "$name does not compile:" && head -n 3 "$B/$name.log"
    } >> "$B/broken"
}

echo "#include \"$(basename "$H")\"" > "$B/unit.c"
: > "$B/broken"
: > "$B/exported"
: > "$B/writable"
: > "$B/foreign"
: > "$B/unknown"

# examine NAME: symbols of $B/NAME.o. nm prints T, R, U, ... and the name.
LIBC="memcpy memset memmove memcmp strlen strcmp strncmp memchr"
LIBM="sqrtf sqrt expf exp logf log cosf cos sinf sin powf pow floorf floor
ceilf ceil fabsf fabs fmaxf fmax fminf fmin roundf round lroundf lround
rintf rint nearbyintf sincosf sincos log1p expm1 fmaf fma"
MALLOC="malloc free"
STDIO="fread fwrite"
COMPILER="__stack_chk_fail _GLOBAL_OFFSET_TABLE_"
THREADS="pthread_create pthread_join pthread_mutex_init pthread_mutex_lock
pthread_mutex_unlock pthread_mutex_destroy pthread_cond_init
pthread_cond_wait pthread_cond_signal pthread_cond_broadcast
pthread_cond_destroy pthread_self pthread_equal sched_yield sysconf"

examine() {
    allowed="$LIBC $LIBM $COMPILER"
    case $1 in
    no_malloc) ;;
    *) allowed="$allowed $MALLOC $STDIO" ;;
    esac
    case $1 in threads) allowed="$allowed $THREADS" ;; esac
    case $1 in debug) allowed="$allowed __assert_fail __assert" ;; esac
    case $1 in cblas) allowed="$allowed cblas_sgemm" ;; esac
    [ -f "$B/$1.o" ] || return
    nm "$B/$1.o" | awk -v name="$1" -v allowed="$allowed" -v b="$B" '
        BEGIN { n = split(allowed, word, /[ \n]+/)
            for (i = 1; i <= n; i++) may[word[i]] = 1 }
        {
            kind = NF == 3 ? $2 : $1
            symbol = NF == 3 ? $3 : $2
            if (kind ~ /^[TWVRBDCGSui]$/ && name == "static")
                print name ": " kind " " symbol >> (b "/exported")
            else if (kind ~ /^[TWVRBDCGSui]$/ && symbol !~ /^smask_[a-z]/)
                print name ": " kind " " symbol >> (b "/exported")
            if (kind ~ /^[bBdDCgGsS]$/)
                print name ": " kind " " symbol >> (b "/writable")
            if (kind == "U" && !(symbol in may))
                print name ": " symbol >> (b "/foreign")
        }'
}

compile plain
compile threads -DSPLITMASK_THREADS
compile debug -DSPLITMASK_DEBUG
compile no_malloc -DSPLITMASK_NO_MALLOC -DSPLITMASK_NO_STDIO
compile no_simd -DSPLITMASK_NO_SIMD -DSPLITMASK_NO_AUTOGRAD \
    -DSPLITMASK_NO_TEXT
compile static -DSPLITMASK_STATIC
compile cblas -DSPLITMASK_CBLAS
for name in plain threads debug no_malloc no_simd static cblas; do
    examine $name
done
verdict "all variants compile" "$B/broken"
verdict "only smask_ is exported, nothing when static" "$B/exported"
verdict "no writable data" "$B/writable"
verdict "no symbols but libc's and libm's" "$B/foreign"

# The functions of the object are those that were found above: the rules on
# chapters have checked all of them.
nm "$B/threads.o" 2> /dev/null | awk -v b="$B" '
    BEGIN {
        while ((getline line < (b "/functions")) > 0) {
            split(line, word, " ")
            known[word[1]] = 1
        }
    }
    NF == 3 && $2 ~ /^[tT]$/ {
        name = $3
        sub(/\..*/, "", name)
        plain = name
        sub(/_(scalar|vector4|avx2|avx512)$/, "_KIND", name)
        if (!(name in known) && !(plain in known))
            print "not checked by the rules on chapters: " plain
    }' > "$B/unseen"
verdict "all functions of the object were looked at" "$B/unseen"

lines=$(wc -l < "$H")
echo "note: $H has $lines lines$([ "$lines" -gt 6500 ] \
    && echo ', more than the 6500 it should have')"
awk -F '\t' '
    FNR == NR { blank[FNR] = $0 ~ /^ *$/; next }
    $3 ~ /^ *$/ && !blank[$1] { comment++ }
    END { printf "note: %d %% of its lines are comment alone\n",
        100 * comment / FNR }' "$H" "$B/code"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
