#!/bin/sh
# The programs, run as a user runs them: help, bad input, a tiny training
# with all its files, stopping and going on, and every program on the result.
# Prints a line for each case that fails, and at the end `N passed, N failed`.
#   sh tests/programs.sh [-v]      -v names the cases that pass too
# Needs the programs in build/ (make). Everything it writes is in
# out/programs. Takes about 20 seconds.
cd "$(dirname "$0")/.." || exit 2
LC_ALL=C
export LC_ALL
O=out/programs
P=build/pretrain
# shellcheck source=tests/cases.sh
. tests/cases.sh
for program in pretrain evaluate finetune embed pictures bench; do
    [ -x "build/$program" ] || make -s "build/$program" || exit 2
done

# ----------------------------------------------------------------- help

for program in pretrain evaluate finetune embed pictures bench; do
    "build/$program" --help > "$O/help" 2> "$O/log" && [ -s "$O/help" ] \
        && [ ! -s "$O/log" ] && ! awk 'length > 80' "$O/help" | grep -q .
    ok "$program --help prints its usage, 80 columns wide, and exits with 0"
done

for option in threads seed; do
    for program in pretrain evaluate finetune embed pictures bench; do
        "build/$program" --help | grep -q "^  --$option N"
        ok "$program has --$option"
    done
done
for command in gemm attention step forward scale tokenizer adam peak; do
    build/bench $command --help | grep -q "^Usage: bench $command "
    ok "bench $command has its own --help"
done

# ------------------------------------------------------------- bad input

set -- --data shapes:40 --batch 8 --out "$O/none"
refuse "unknown option" $P "$@" --speed 3
refuse "word without option" $P "$@" fast
refuse "missing value" $P "$@" --lr
refuse "no number" $P "$@" --lr fast
refuse "negative rate" $P "$@" --lr -1
refuse "rate is not a number" $P "$@" --lr nan
refuse "unknown model" $P "$@" --model huge
refuse "unknown method" $P "$@" --method mae
refuse "unknown tokenizer" $P "$@" --tokenizer vqgan
refuse "one word" $P "$@" --vocab 1
refuse "number with letters" $P "$@" --vocab 12x
refuse "number too large" $P "$@" --batch 99999999999999999999
refuse "image no multiple of patch" $P "$@" --image 30 --patch 4
refuse "one patch" $P "$@" --image 8 --patch 8
refuse "width no multiple of heads" $P "$@" --dim 30 --heads 4
refuse "nothing to learn" $P "$@" --no-match --no-inpaint
refuse "official SplitMask" $P "$@" --official
refuse "quarters in BEiT" $P "$@" --method beit --mask quarters
refuse "half and full" $P "$@" --half --full
refuse "odd patch at half" $P "$@" --image 15 --patch 5 --half
refuse "warm-up longer than training" $P "$@" --steps 3 --warmup 4
refuse "nothing to resume" $P "$@" --resume
refuse "no data" $P --data "$O/nowhere" --out "$O/none"
echo "not a model" > "$O/text"
refuse "file as --out" $P --data shapes:40 --batch 8 --steps 1 \
    --out "$O/text"
refuse "evaluate without model" build/evaluate --data shapes:40
refuse "evaluate without file" build/evaluate --model "$O/nowhere" \
    --data shapes:40
refuse "evaluate on a text" build/evaluate --model "$O/text" --data shapes:40
refuse "finetune on a text" build/finetune --model "$O/text" \
    --data shapes:40 --out "$O/none"
refuse "embed without input" build/embed --model "$O/text" --output "$O/e"
refuse "pictures without model" build/pictures
refuse "pictures with no such number of threads" build/pictures --threads x
refuse "bench without command" build/bench
refuse "bench with options alone" build/bench --threads 1
refuse "bench with an unknown command" build/bench fast
refuse "bench with an unknown option" build/bench step --speed 3
refuse "bench with another command's option" build/bench gemm --depth 2
refuse "bench with an unknown instruction set" build/bench adam --isa mmx
refuse "bench with an image no multiple of patch" build/bench step --image 30

# ---------------------------------------------------------------- bench

build/bench gemm --m 9 --n 33 --k 5 --trans TN --threads 1 --repeat 1 \
    --lanes scalar > "$O/result" 2> "$O/log" \
    && grep -q 'isa scalar, 1 thread$' "$O/result" \
    && within "$(value gflops "$O/result")" 0.0001 1000 \
    && within "$(value peak_gflops "$O/result")" 0.01 1000000
ok "bench gemm prints its speed; --lanes is another name of --isa"
small="--dim 16 --depth 1 --heads 1 --image 16 --batch 2 --steps 2 --repeat 1"
for method in splitmask beit; do
    # shellcheck disable=SC2086  # several words are meant
    build/bench step --method $method $small --vocab 8 --profile \
        > "$O/result" 2> "$O/log" \
        && ! grep -v '^#' "$O/result" | grep -qv '^[A-Za-z_0-9]* [-0-9.]*$'
    ok "bench step --profile prints lines of name and value ($method)"
done
for name in loss ms images_per_s gflops peak_mb step_bytes matrix_share; do
    within "$(value $name "$O/result")" 0.0001 1000000000
    ok "bench step has the result line $name"
done
# shellcheck disable=SC2086
printf 'go\ngo\n' | build/bench forward $small --serve > "$O/result" \
    2> "$O/log" && [ "$(grep -cE '^(ready|ms [0-9.]*)$' "$O/result")" -eq 3 ]
ok "bench forward --serve measures once for each line it reads"

# ---------------------------------------------------------- tiny training

small="--data shapes:160 --dim 32 --depth 2 --heads 2 --decoder-depth 1 \
--vocab 32 --batch 16 --seed 5"
train() {
    # shellcheck disable=SC2086  # several words are meant
    $P $small "$@" > "$O/result" 2> "$O/log"
}

train --steps 20 --threads 1 --out "$O/one" && cp "$O/log" "$O/messages"
ok "20 steps on one thread"
for name in loss inpaint_loss match_loss token_entropy token_accuracy \
        images_per_s peak_mb; do
    within "$(value $name "$O/result")" 0 1000000
    ok "result line $name"
done
[ "$(wc -l < "$O/one/log.csv")" -eq 21 ]
ok "log.csv has a row per step"
awk -F, 'NR == 1 { n = NF } NF != n || (NR > 1 && $1 != NR - 1) { bad = 1 }
    END { exit bad || n < 7 }' "$O/one/log.csv"
ok "log.csv is a table"
awk -F, 'NR == 1 { bad = $9 != "noise_match_accuracy" }
    NR == 2 { bad = bad || $9 != "" }
    NR == 21 { bad = bad || $9 == "" || $9 < 0 || $9 > 1 }
    END { exit bad }' "$O/one/log.csv"
ok "log.csv: match accuracy on noise, once it was measured"
grep -q -e 'recognised by the split alone: 0\.[0-9]*, by chance 0\.0' \
    -e 'halves of pure noise recognise each other' "$O/messages"
ok "the run ends with match accuracy on noise, or a warning"
grep -q 'recognised by the split alone, chance is 6\.[0-9]' \
    "$O/one/report.html"
ok "report.html has match accuracy on noise, and chance"
train --steps 20 --no-match --threads 1 --out "$O/inpaint_only"
! grep -q 'by the split alone' "$O/log" "$O/inpaint_only/report.html" \
    && awk -F, 'NR > 1 && $9 != "" { exit 1 }' "$O/inpaint_only/log.csv"
ok "without a match there is none of it"

# A file of others: the same weights without this project's notes. The names
# of the entries keep their length, so the file stays whole.
LC_ALL=C sed 's/"splitmask":"1"/"xplitmask":"1"/;s/"mean":"/"nean":"/
s/"std":"/"ntd":"/' "$O/one/model.safetensors" > "$O/other.safetensors"
printf 'P6 1 1 255\nabc' > "$O/dot.ppm"
for program in "evaluate --data shapes:160 --knn" \
        "finetune --data shapes:160 --epochs 1 --out $O/other" \
        "embed --input $O/dot.ppm --output $O/other.out"; do
    # shellcheck disable=SC2086
    refuse "${program%% *}: a file that does not say how pixels are" \
        build/$program --model "$O/other.safetensors"
done
build/evaluate --data shapes:160 --knn --model "$O/other.safetensors" \
    --mean 0.5,0.4,0.3 --std 0.2,0.2,0.2 > "$O/result" 2> "$O/log" \
    && grep -q 'mean 0.500 0.400 0.300.*from --mean and --std' "$O/log"
ok "evaluate takes --mean and --std, and says so"
refuse "--mean with two numbers" build/evaluate --data shapes:160 --knn \
    --model "$O/other.safetensors" --mean 0.5,0.4 --std 0.2,0.2,0.2
refuse "--mean without --std" build/evaluate --data shapes:160 --knn \
    --model "$O/other.safetensors" --mean 0.5,0.4,0.3
mkdir -p "$O/hub" && cp "$O/other.safetensors" "$O/hub/model.safetensors"
echo '{"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}' \
    > "$O/hub/config.json"
build/evaluate --data shapes:160 --knn --model "$O/hub/model.safetensors" \
    > "$O/result" 2> "$O/log" \
    && grep -q 'mean 0.100 0.200 0.300.*from config.json' "$O/log"
ok "evaluate takes config.json beside the file, and says so"
build/evaluate --data shapes:160 --knn --model "$O/one/model.safetensors" \
    > "$O/result" 2> "$O/log" && grep -q 'from the model file' "$O/log"
ok "evaluate takes the pixels of the model file, and says so"
for option in --dim --depth --image --patch; do
    refuse "$option beside a file" build/evaluate --data shapes:160 --knn \
        --model "$O/one/model.safetensors" $option 32
done
refuse "--heads against the file" build/evaluate --data shapes:160 --knn \
    --model "$O/one/model.safetensors" --heads 4
LC_ALL=C sed 's/"num_heads":"/"nun_heads":"/' "$O/other.safetensors" \
    > "$O/guess.safetensors"
build/evaluate --data shapes:160 --knn --model "$O/guess.safetensors" \
    --mean 0.5,0.4,0.3 --std 0.2,0.2,0.2 > "$O/result" 2> "$O/log" \
    && grep -q 'heads, guessed from the width 32' "$O/log"
ok "a guess of the heads is printed as one"
build/evaluate --data shapes:160 --knn --model "$O/guess.safetensors" \
    --heads 2 --mean 0.5,0.4,0.3 --std 0.2,0.2,0.2 > "$O/a" 2> "$O/log" \
    && ! grep -q guessed "$O/log" \
    && build/evaluate --data shapes:160 --knn --model "$O/other.safetensors" \
        --mean 0.5,0.4,0.3 --std 0.2,0.2,0.2 > "$O/b" 2> "$O/log" \
    && cmp "$O/a" "$O/b" > "$O/log" 2>&1
ok "--heads is obeyed where the file does not say"
grep -q '</html>' "$O/one/report.html" \
    && ! grep -Eq '<script|(src|href)="[^d]|url\(|@import' \
        "$O/one/report.html"
ok "report.html is complete and fetches nothing"
for tag in figure figcaption svg div dl dt dd p; do
    awk -v t="$tag" '{ a += gsub("<" t "[ >]", ""); b += gsub("</" t ">", "") }
        END { exit !(a > 0 && a == b) }' "$O/one/report.html"
    ok "report.html closes every $tag"
done

train --steps 20 --threads 2 --out "$O/two"
cmp "$O/one/model.safetensors" "$O/two/model.safetensors" > "$O/log" 2>&1
ok "two threads write the same file as one"

# Products that round to bfloat16 take a like course; 20 steps lead a loss
# near 6 apart by far less than a tenth.
before=$(value loss "$O/result")
if build/bench adam --isa bf16 --repeat 1 > "$O/log" 2>&1; then
    train --steps 20 --bf16 --out "$O/bf16"
    ok "20 steps with --bf16"
    after=$(value loss "$O/result")
    within "$(awk -v a="$before" -v b="$after" 'BEGIN { print a - b }')" \
        -0.1 0.1
    ok "the loss is that of floats, nearly ($after, $before)"
else
    echo "skip --bf16: not on this processor"
    # shellcheck disable=SC2086
    refuse "--bf16 elsewhere" $P $small --bf16 --out "$O/none"
fi

# ---------------------------------------------------- stopping, going on
# Longer, so that there is time to stop it. Whenever the signal comes, also
# after the end, the file has to be the same in the end.

train --steps 1500 --out "$O/whole"
ok "1500 steps at a stretch"
# shellcheck disable=SC2086
$P $small --steps 1500 --out "$O/parts" > "$O/result" 2> "$O/log" &
job=$!
tries=0
while [ ! -s "$O/parts/log.csv" ] && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
sleep 0.3
kill -TERM $job 2> /dev/null
wait $job
code=$?
[ $code -eq 130 ] && grep -q -e '--resume$' "$O/log"
ok "a signal stops the run, which says how to go on (exit code $code)"
[ "$(wc -l < "$O/parts/log.csv")" -lt 1501 ]
ok "it stopped before the end"
cp "$O/parts/model.safetensors" "$O/middle" 2> "$O/log"
# shellcheck disable=SC2086
refuse "resuming with another rate" $P $small --steps 1500 --lr 0.5 \
    --out "$O/parts" --resume
# shellcheck disable=SC2086
refuse "resuming with other data" $P $small --data shapes:80 --steps 1500 \
    --out "$O/parts" --resume
cmp "$O/middle" "$O/parts/model.safetensors" > "$O/log" 2>&1
ok "a refused --resume leaves the file alone"
train --steps 1500 --out "$O/parts" --resume --threads 1
ok "going on"
cmp "$O/whole/model.safetensors" "$O/parts/model.safetensors" \
    > "$O/log" 2>&1
ok "stopped and resumed, the same file as at a stretch"
cut -d, -f1-7,9 "$O/whole/log.csv" > "$O/a"
cut -d, -f1-7,9 "$O/parts/log.csv" > "$O/b"
cmp "$O/a" "$O/b" > "$O/log" 2>&1
ok "and the same log"
within "$(value inpaint_loss "$O/result")" 0 \
    "$(value token_entropy "$O/result")"
ok "1500 steps learn more than how often words occur"
# shellcheck disable=SC2086
refuse "resuming for longer" $P $small --steps 1600 --out "$O/parts" --resume
cp "$O/two/model.safetensors" "$O/earlier"
train --steps 3 --out "$O/two"
cmp "$O/earlier" "$O/two/model.safetensors.old" >> "$O/log" 2>&1 \
    && [ -s "$O/two/log.csv.old" ] && grep -q 'earlier run' "$O/log"
ok "without --resume the earlier run is kept, and that is told"
rm "$O/two/log.csv"
train --steps 3 --out "$O/two" --resume
[ -z "$(value loss "$O/result")" ] && grep -q 'lacks rows' "$O/log"
ok "with a lost log nothing is told of losses"
head -c 3000 "$O/middle" > "$O/parts/model.safetensors"
# shellcheck disable=SC2086
refuse "resuming from half a file" $P $small --steps 1500 --out "$O/parts" \
    --resume

# ---------------------------------------------------------- nothing lost

# The reader is gone before the first line is written.
{
    sleep 0.3
    # shellcheck disable=SC2086
    $P $small --steps 20 --out "$O/pipe"
} 2>&1 | true
[ "$(steps "$O/pipe/model.safetensors")" = 20 ]
ok "pretrain into a closed pipe saves its model"
# shellcheck disable=SC2086
(ulimit -f 16 && $P $small --steps 20 --out "$O/limit") > "$O/result" \
    2> "$O/log"
[ $? -eq 2 ] && grep -q 'model.safetensors: not written' "$O/log"
ok "a limit on the size of files is an error, not the end by a signal"
{
    sleep 0.3
    build/finetune --model random --dim 32 --depth 1 --data shapes:40 \
        --epochs 1 --batch 8 --out "$O/pipe_tuned"
} 2>&1 | true
[ -s "$O/pipe_tuned/model.safetensors" ]
ok "finetune into a closed pipe saves its model"
if [ -c /dev/full ]; then
    build/finetune --model random --dim 32 --depth 1 --data shapes:40 \
        --epochs 1 --batch 8 --out "$O/full_tuned" > /dev/full 2> "$O/log"
    [ $? -eq 2 ] && [ -s "$O/full_tuned/model.safetensors" ]
    ok "finetune saves its model before its result fails to print"
fi

# Two runs, one folder. A stopped process writes nothing, but lives.
# shellcheck disable=SC2086
$P $small --steps 100000 --out "$O/shared" > /dev/null 2>&1 &
job=$!
until_log "$O/shared"
kill -STOP $job
for options in "$P $small --steps 20" "$P $small --steps 20 --resume" \
        "build/finetune --model random --dim 32 --depth 1 --data shapes:40"
do
    touch "$O/shared/model.safetensors"
    # shellcheck disable=SC2086
    refuse "${options%% *} into the folder of a running run" \
        $options --out "$O/shared"
    cp "$O/stderr" "$O/log"
    grep -q 'another run writes to .*/shared; give another --out' "$O/log"
    ok "and it names the reason"
done
kill -KILL $job
wait $job 2> /dev/null
echo "half a file" > "$O/shared/model.safetensors.part"
ln "$O/shared/model.safetensors.part" "$O/half"
train --steps 3 --out "$O/shared" \
    && [ "$(steps "$O/shared/model.safetensors")" = 3 ] \
    && [ ! -e "$O/shared/model.safetensors.part" ] \
    && [ "$(cat "$O/half")" = "half a file" ]
ok "the lock of a dead run is free, and its .part is removed, not filled"

# Signals that batch systems send before a limit, and those of users. Some
# come more than once: timeout sends to the process, then to its group.
for number in TERM HUP USR1 USR2 XCPU ALRM; do
    # shellcheck disable=SC2086
    $P $small --steps 100000 --save-every 100000 --out "$O/signal" \
        > "$O/result" 2> "$O/log" &
    job=$!
    until_log "$O/signal"
    sleep 0.1
    kill -$number $job
    sleep 0.01
    kill -$number $job 2> /dev/null
    wait $job
    code=$?
    [ $code -eq 130 ] && grep -q 'and saved; go on with' "$O/log" \
        && [ "$(steps "$O/signal/model.safetensors")" -gt 0 ]
    ok "SIG$number stops and saves (exit code $code)"
    rm -rf "$O/signal"
done
build/finetune --model random --dim 32 --depth 1 --data shapes:40 --batch 8 \
    --epochs 99999 --out "$O/signal" > "$O/result" 2> "$O/log" &
job=$!
until_log "$O/signal"
sleep 0.1
kill -USR1 $job
wait $job
code=$?
[ $code -eq 130 ] && [ -s "$O/signal/model.safetensors" ]
ok "SIGUSR1 stops finetune, which saves (exit code $code)"

# Saved by time: killed without a word, it still left a model.
# shellcheck disable=SC2086
$P $small --steps 100000 --save-every 100000 --save-minutes 0.002 \
    --out "$O/timed" > "$O/result" 2> "$O/log" &
job=$!
tries=0
while [ ! -e "$O/timed/report.html" ] && [ $tries -lt 200 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
kill -KILL $job
wait $job 2> /dev/null
[ "$(steps "$O/timed/model.safetensors")" -gt 0 ]
ok "saves come by time, too"

# The folder goes while the run lasts, and a file takes its place for a while.
# shellcheck disable=SC2086
$P $small --steps 1500 --save-every 10 --out "$O/gone" > "$O/result" \
    2> "$O/log" &
job=$!
until_log "$O/gone"
lose_folder $job "$O/gone"
code=$?
[ $code -eq 0 ] && grep -q 'not saved, tried again later' "$O/log" \
    && [ "$(steps "$O/gone/model.safetensors")" = 1500 ] \
    && [ "$(wc -l < "$O/gone/log.csv")" -eq 1501 ] \
    && [ -s "$O/gone/report.html" ]
ok "a save that fails is tried again, and the folder made anew ($code)"

# Files that do not belong to the run that shall go on.
train --steps 20 --out "$O/foreign"
for change in 's/"adam.step":"20"/"adam.step":"21"/;is at step 21' \
        's/"splitmask":"1"/"splitmask":"2"/;later version'; do
    cp "$O/foreign/model.safetensors" "$O/saved"
    sed "${change%;*}" "$O/saved" > "$O/foreign/model.safetensors"
    # shellcheck disable=SC2086
    refuse "resuming where it ${change#*;}" $P $small --steps 20 \
        --out "$O/foreign" --resume
    grep -q "${change#*;}" "$O/stderr"
    ok "and it names the reason"
    cp "$O/saved" "$O/foreign/model.safetensors"
done
mkdir -p "$O/named/a" "$O/named/b"
for n in 1 2 3 4; do
    for class in a b; do
        awk -v n=$n -v c=$class 'BEGIN {
            print "P3\n16 16\n255"
            for (i = 0; i < 768; i++) print (i * n) % 256
        }' > "$O/named/$class/$n.ppm"
    done
done
named="$P --data $O/named --image 16 --patch 4 --dim 32 --depth 1 --heads 1 \
--vocab 8 --tokenizer patches --batch 4 --steps 3 --out $O/named_run"
$named > "$O/result" 2> "$O/log" \
    && grep -q '"data.names":"[0-9a-f]\{16\}"' "$O/named_run/model.safetensors"
ok "the list of files is kept with the model"
cp "$O/named_run/model.safetensors" "$O/saved"
$named --resume > "$O/result" 2> "$O/log"
ok "the same files: going on"
mv "$O/named/a/1.ppm" "$O/named/a/5.ppm"
cp "$O/saved" "$O/named_run/model.safetensors"
$named --resume > "$O/result" 2> "$O/log"
[ $? -eq 2 ] && grep -q 'other names, or another order' "$O/log" \
    && cmp "$O/saved" "$O/named_run/model.safetensors"
ok "resuming with a renamed file is refused, with the reason"
# As 0.1.0 wrote it, without the entry: byte for byte another key.
sed 's/"data.names"/"date.names"/' "$O/saved" \
    > "$O/named_run/model.safetensors"
$named --resume > "$O/result" 2> "$O/log"
ok "a file without the list still resumes"

# A power cut: the bytes, then the name, then the folder reach the disk.
trace="strace -f -y -o $O/trace -e trace=fsync,rename,renameat,renameat2"
if $trace true > /dev/null 2>&1; then
    for program in "$P $small --steps 3" \
            "build/finetune --model random --dim 32 --depth 1 \
            --data shapes:40 --epochs 1"; do
        # shellcheck disable=SC2086
        $trace $program --out "$O/synced" > "$O/result" 2> "$O/log" \
            && awk '/fsync.*model.safetensors.part/ { bytes = 1 }
                bytes && /rename.*model.safetensors.part"/ { name = 1 }
                name && /fsync.*synced>/ { folder = 1 }
                END { exit !folder }' "$O/trace"
        ok "${program%% *} syncs file and folder around the rename"
    done
else
    echo "skip fsync: needs strace"
fi

# ------------------------------------------------------- all the methods

for options in "--method beit" "--method beit --official" \
        "--tokenizer patches --mask uniform" \
        "--tokenizer kmeans --mask quarters --extras" \
        "--mask independent --ratio 0.6 --sincos --recompute" \
        "--no-match --layer-scale 0.1 --drop-path 0.2 --centre" \
        "--no-inpaint --half --uniform01" "--euclidean --channels 1" \
        "--image 24 --patch 6 --limit 50 --crop 0.5" \
        "--match-weight 0.1 --temperature 0.5 --inpaint-weight 2" \
        "--raw-features --all-negatives --stop-keys" \
        "--no-decoder-embed --shared-positions"; do
    # shellcheck disable=SC2086
    train --steps 3 --out "$O/method" $options \
        && [ -n "$(value loss "$O/result")" ] \
        && grep -q '</html>' "$O/method/report.html"
    ok "pretrain $options"
done

# -------------------------------------------------- programs on the model

M=$O/whole/model.safetensors
build/evaluate --model "$M" --data shapes:160 --k 5 > "$O/result" 2> "$O/log"
ok "evaluate"
for name in knn_top1 probe_top1 raw_knn_top1; do
    within "$(value $name "$O/result")" 0 100
    ok "result line $name"
done
build/evaluate --model random --dim 32 --depth 2 --data shapes:160 --knn \
    > "$O/result" 2> "$O/log" && within "$(value knn_top1 "$O/result")" 0 100
ok "evaluate a random model"
build/finetune --model "$M" --data shapes:160 --epochs 2 --batch 16 \
    --out "$O/tuned" > "$O/result" 2> "$O/log" \
    && within "$(value finetune_top1 "$O/result")" 0 100 \
    && [ -s "$O/tuned/log.csv" ]
ok "finetune"
build/evaluate --model "$O/tuned/model.safetensors" --data shapes:160 --knn \
    > "$O/result" 2> "$O/log"
ok "evaluate what finetune wrote"
build/finetune --model "$O/tuned/model.safetensors" --data shapes:160 \
    --epochs 1 --batch 16 --out "$O/again" > "$O/result" 2> "$O/log"
ok "finetune what finetune wrote"

cp "$M" "$O/earlier"
refuse "finetune into its model's folder" build/finetune --model "$M" \
    --data shapes:160 --out "$O/whole"
refuse "embed over its model" build/embed --model "$M" --input "$M" \
    --output "$M"
cmp "$O/earlier" "$M" > "$O/log" 2>&1
ok "the model is still there"
refuse "a folder as the model" build/evaluate --model "$O/whole" \
    --data shapes:160
build/finetune --model "$M" --data shapes:160 --epochs 99999 --batch 16 \
    --out "$O/stopped" > "$O/result" 2> "$O/log" &
job=$!
tries=0
until grep -q '^1,' "$O/stopped/log.csv" 2> /dev/null \
        || [ $tries -ge 200 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
kill -TERM $job 2> /dev/null
wait $job
[ $? -eq 130 ] && [ -s "$O/stopped/model.safetensors" ] \
    && [ ! -s "$O/result" ] && grep -q 'stopped at step' "$O/log"
ok "finetune, stopped by a signal, keeps what it has"

# Other programs' files do not tell the number of heads: its key, and a norm's,
# are made unknown, byte for byte.
sed 's/"num_heads"/"num_headz"/' "$M" > "$O/timm.safetensors"
sed 's/"norm.weight"/"nerm.weight"/' "$O/tuned/model.safetensors" \
    > "$O/lacking.safetensors"
for program in evaluate finetune; do
    more="--out $O/timm --epochs 1"
    [ "$program" = evaluate ] && more=--knn
    # shellcheck disable=SC2086
    "build/$program" --model "$O/timm.safetensors" --data shapes:160 $more \
        > "$O/result" 2> "$O/log"
    ok "$program on a file without num_heads"
    refuse "$program on a file that lacks a weight" "build/$program" \
        --model "$O/lacking.safetensors" --data shapes:160 $more
done

# An image folder, one file of which is broken, one too large; and a link in
# one class leads back to both.
for class in ring bar; do
    for split in train val; do
        mkdir -p "$O/folder/$split/$class"
        for n in 1 2 3 4; do
            awk -v n=$n -v c=$class 'BEGIN {
                print "P3\n20 24\n255"
                for (i = 0; i < 480; i++)
                    print (i * n) % 256, (c == "bar") * 200, i % 20 * n
            }' > "$O/folder/$split/$class/$n.ppm"
        done
    done
done
head -c 40 "$O/folder/train/bar/1.ppm" > "$O/folder/train/bar/broken.ppm"
printf 'P5\n16384 16384\n255\n' > "$O/folder/train/bar/huge.pgm"
ln -s .. "$O/folder/train/bar/around"
# shellcheck disable=SC2086
$P --data "$O/folder" --image 16 --patch 4 --dim 32 --depth 1 --heads 1 \
    --vocab 8 --tokenizer patches --batch 4 --steps 3 --out "$O/images" \
    > "$O/result" 2> "$O/log" && grep -q broken.ppm "$O/log" \
    && grep -q 'huge.pgm: .* 16384 x 16384 pixels .* skipped' "$O/log" \
    && grep -q '2 classes.* bar 4+4, ring 4+4' "$O/log"
ok "a folder of images; the broken ones are named, and the classes"
build/evaluate --model "$O/images/model.safetensors" --data "$O/folder" \
    --k 3 > "$O/result" 2> "$O/log"
ok "evaluate on it"

rm -f "$O/folder/train/bar/broken.ppm"
E=build/embed
$E --model "$M" --input "$O/folder" --output "$O/rest" > "$O/result" \
    2> "$O/log" && [ "$(value left_out "$O/result")" -eq 1 ] \
    && grep -q 'huge.pgm: .* 16384 x 16384 pixels .* make the image smaller' \
    "$O/log" && [ "$(wc -l < "$O/rest.csv")" -eq 17 ] \
    && ! grep -q huge "$O/rest.csv"
ok "embed leaves out an image that is too large: named, and what to do"
$E --model "$M" --input "$O/folder/train/bar/huge.pgm" \
    --output "$O/none" > "$O/result" 2> "$O/log"
[ $? -eq 2 ] && grep -q 'no image there can be read' "$O/log" \
    && [ ! -e "$O/none" ]
ok "embed where no image can be read"
rm -f "$O/folder/train/bar/huge.pgm"
$E --model "$M" --input "$O/folder" --output "$O/e" > "$O/result" 2> "$O/log" \
    && $E --model "$M" --input "$O/folder" --output "$O/f" --batch 3 \
    --threads 1 >> "$O/result" 2> "$O/log" \
    && cmp "$O/e" "$O/f" > "$O/log" 2>&1
ok "embed a folder; batches and threads do not matter"
[ "$(value images "$O/result" | tail -n 1)" -eq 16 ] \
    && head -c 4000 "$O/e" \
        | grep -q '"tokens":{"dtype":"F32","shape":\[16,64'
ok "16 images, 64 tokens each"
$E --model "$M" --input "$O/folder/val/bar/1.ppm" --output "$O/e" \
    > "$O/result" 2> "$O/log"
ok "embed one image"

build/pictures --model "$M" --data shapes:160 --out "$O/a.png" \
    > "$O/result" 2> "$O/log" \
    && build/pictures --model "$M" --data shapes:160 --out "$O/b.png" \
        --threads 1 >> "$O/result" 2> "$O/log" \
    && cmp "$O/a.png" "$O/b.png" > "$O/log" 2>&1
ok "pictures; threads do not matter"
build/pictures --model "$M" --data shapes:160 --out "$O/b.png" --seed 2 \
    > "$O/result" 2> "$O/log" && ! cmp -s "$O/a.png" "$O/b.png"
ok "pictures of another seed"

cases_end
