#!/bin/sh
# What programs write: fine-tuning that is killed, stopped, resumed, refused;
# output files of embed and pictures where the disk, another program or the
# place itself is in the way. Training with pretrain is in programs.sh.
#   sh tests/saving.sh [-v]      -v names the cases that pass too
# Needs the programs in build/ (make). Everything it writes is in out/saving.
# Takes about 30 seconds.
# shellcheck disable=SC2086  # commands in variables: several words are meant
cd "$(dirname "$0")/.." || exit 2
LC_ALL=C
export LC_ALL
O=out/saving
# shellcheck source=tests/cases.sh
. tests/cases.sh
for program in pretrain finetune embed pictures; do
    [ -x "build/$program" ] || make -s "build/$program" || exit 2
done

T=build/finetune
small="--model random --dim 32 --depth 2 --image 16 --data shapes:200 \
--batch 16 --seed 3"
tune() {
    $T $small "$@" > "$O/result" 2> "$O/log"
}

# refused CASE REASON COMMAND...: refused, and the reason is in the line.
refused() {
    case=$1
    reason=$2
    shift 2
    refuse "$case" "$@"
    cp "$O/stderr" "$O/log"
    grep -q -e "$reason" "$O/log"
    ok "$case: the line says '$reason'"
}

# until_saved FOLDER STEPS: wait until a run has saved so many steps.
until_saved() {
    tries=0
    until within "$(steps "$1/model.safetensors")" "$2" 1000000000 \
            || [ $tries -ge 400 ]; do
        tries=$((tries + 1))
        sleep 0.02
    done
}

# ------------------------------------------------------- killed, resumed

tune --epochs 40 --threads 1 --out "$O/whole"
ok "40 epochs at a stretch"
cp "$O/result" "$O/whole_result"
[ "$(wc -l < "$O/whole/log.csv")" -eq 41 ] \
    && awk -F, 'NR > 1 && ($1 != NR - 1 || $3 < 2 || $3 > 2.5 || NF != 14) {
        bad = 1 } END { exit bad }' "$O/whole/log.csv"
ok "log.csv has a row an epoch, each with the mean loss of that epoch"
for threads in 1 2; do
    rm -rf "$O/parts"
    $T $small --epochs 40 --threads $threads --save-every 7 --out "$O/parts" \
        > /dev/null 2>&1 &
    job=$!
    until_saved "$O/parts" 20
    kill -KILL $job
    wait $job 2> /dev/null
    within "$(steps "$O/parts/model.safetensors")" 20 479
    ok "$threads threads: killed, and what was saved is there"
    tune --epochs 40 --threads $threads --out "$O/parts" --resume
    ok "$threads threads: going on"
    cmp "$O/whole/model.safetensors" "$O/parts/model.safetensors" \
        > "$O/log" 2>&1
    ok "$threads threads: killed and resumed, the same file as at a stretch"
    cmp "$O/whole/log.csv" "$O/parts/log.csv" > "$O/log" 2>&1
    ok "$threads threads: and the same log"
    [ -n "$(value finetune_top1 "$O/result")" ] \
        && [ "$(value finetune_top1 "$O/result")" \
            = "$(value finetune_top1 "$O/whole_result")" ]
    ok "$threads threads: and the same accuracy"
done
# What was saved at the end of an epoch, before its row was written.
tune --epochs 40 --out "$O/parts" --resume \
    && cmp "$O/whole/log.csv" "$O/parts/log.csv" > "$O/log" 2>&1 \
    && [ "$(value finetune_top1 "$O/result")" \
        = "$(value finetune_top1 "$O/whole_result")" ]
ok "a finished run, resumed, tests again and says the same"

# 12 steps an epoch: the last epoch of these is cut short.
tune --steps 31 --out "$O/steps" \
    && [ "$(steps "$O/steps/model.safetensors")" = 31 ] \
    && [ "$(wc -l < "$O/steps/log.csv")" -eq 4 ] \
    && [ -n "$(value finetune_top1 "$O/result")" ]
ok "--steps, and a last epoch that is cut short"
tune --steps 24 --out "$O/by_steps" && tune --epochs 2 --out "$O/by_epochs" \
    && cmp "$O/by_steps/model.safetensors" "$O/by_epochs/model.safetensors" \
        >> "$O/log" 2>&1
ok "as many steps as epochs have: the same file"

# ---------------------------------------------------- signals, time, place

for number in TERM HUP USR1 USR2 XCPU ALRM; do
    rm -rf "$O/signal"
    $T $small --epochs 90000 --save-every 1000000 --out "$O/signal" \
        > "$O/result" 2> "$O/log" &
    job=$!
    until_log "$O/signal"
    sleep 0.1
    kill -$number $job
    sleep 0.01
    kill -$number $job 2> /dev/null
    wait $job
    code=$?
    [ $code -eq 130 ] && [ ! -s "$O/result" ] \
        && grep -q 'and saved; go on with: .* --resume$' "$O/log" \
        && [ "$(steps "$O/signal/model.safetensors")" -gt 0 ]
    ok "SIG$number stops and saves (exit code $code)"
done
$T $small --epochs 40 --save-every 1000 --out "$O/signal" > "$O/result" \
    2> "$O/log" &
job=$!
until_log "$O/signal"
sleep 0.2
kill -TERM $job
wait $job
again=$(sed -n 's/.*go on with: //p' "$O/log")
[ -n "$again" ] && $again > "$O/result" 2> "$O/log" \
    && cmp "$O/whole/model.safetensors" "$O/signal/model.safetensors" \
        > "$O/log" 2>&1 \
    && cmp "$O/whole/log.csv" "$O/signal/log.csv" > "$O/log" 2>&1
ok "the command that it prints goes on to the same file and log"

$T $small --epochs 90000 --save-every 1000000 --save-minutes 0.002 \
    --out "$O/timed" > "$O/result" 2> "$O/log" &
job=$!
until_saved "$O/timed" 1
refused "resuming what still runs" 'another run writes to .*/timed' \
    $T $small --epochs 90000 --out "$O/timed" --resume
kill -KILL $job
wait $job 2> /dev/null
within "$(steps "$O/timed/model.safetensors")" 1 1000000000
ok "saves come by time, too"

# The folder goes while the run lasts, and a file takes its place for a while.
$T $small --epochs 40 --save-every 5 --out "$O/gone" > "$O/result" \
    2> "$O/log" &
job=$!
until_log "$O/gone"
lose_folder $job "$O/gone"
code=$?
[ $code -eq 0 ] && grep -q 'not saved, tried again later' "$O/log" \
    && cmp "$O/whole/model.safetensors" "$O/gone/model.safetensors" \
    && cmp "$O/whole/log.csv" "$O/gone/log.csv"
ok "a save that fails is tried again, and the folder made anew ($code)"

(ulimit -f 16 && exec $T $small --epochs 1 --out "$O/limit") > "$O/result" \
    2> "$O/log"
[ $? -eq 2 ] && grep -q 'model.safetensors: not written' "$O/log" \
    && [ ! -e "$O/limit/model.safetensors" ] \
    && [ ! -e "$O/limit/model.safetensors.part" ]
ok "without room the reason is told, and no half file stays"

# ------------------------------------------------------------ divergence
# Black images and a white one. The model's note on pixels is made such that
# black stays 0 and white overflows, so the step that meets it is not finite.

# image NAME VALUE
image() {
    awk -v x="$2" 'BEGIN { print "P3\n16 16\n255"
        for (i = 0; i < 768; i++) print x }' > "$1"
}
for class in a b; do
    mkdir -p "$O/two/train/$class" "$O/two/val/$class" \
        "$O/third/train/$class" "$O/third/val/$class"
    for n in 1 2 3 4 5 6 7 8; do
        image "$O/two/train/$class/$n.ppm" 0
    done
    image "$O/two/val/$class/1.ppm" 0
    image "$O/third/train/$class/1.ppm" 0
    image "$O/third/train/$class/2.ppm" 0
    image "$O/third/train/$class/3.ppm" 255
    image "$O/third/val/$class/1.ppm" 0
done
image "$O/two/train/b/9.ppm" 255
$T --model random --dim 32 --depth 2 --image 16 --data "$O/third" --epochs 1 \
    --batch 2 --out "$O/notes" > "$O/result" 2> "$O/log"
n='[0-9.]\{11\}'
sed "s/\"mean\":\"$n $n $n\"/\"mean\":\"0.000000000 0.000000000 0.000000000\"/
    s/\"std\":\"$n $n $n\"/\"std\":\"1.00000e-40 1.00000e-40 1.00000e-40\"/" \
    "$O/notes/model.safetensors" > "$O/overflow"
overflow="$T --model $O/overflow --data $O/two --epochs 1 --batch 1 --seed 2 \
--mixup 0 --cutmix 0"
for every in 4 1000; do
    $overflow --save-every $every --out "$O/diverged$every" > "$O/result" \
        2> "$O/log"
    code=$?
    cp "$O/log" "$O/stderr"
    [ $code -eq 2 ] && [ ! -s "$O/result" ] \
        && grep -q 'step [0-9]*: the loss or its gradient is not finite; try' \
            "$O/log"
    ok "a step that is not finite ends the run (exit code $code)"
    saved=$(steps "$O/diverged$every/model.safetensors")
    cp "$O/stderr" "$O/log"
    within "$saved" 1 16 \
        && grep -q "holds the last good save, of step $saved" "$O/log"
    ok "saves every $every steps: the last good model is there (${saved:-none})"
done
failed_step=$(sed -n 's/.*step \([0-9]*\): the loss.*/\1/p' "$O/stderr")
[ "$((${saved:-0} + 1))" = "$failed_step" ]
ok "without a save before, that of the step before"
$overflow --save-every "${saved:-1}" --out "$O/diverged" > "$O/result" \
    2> "$O/log"
cmp "$O/diverged/model.safetensors" "$O/diverged1000/model.safetensors" \
    > "$O/log" 2>&1
ok "and it is what a save at that step would have been"

# 34 steps, so a save every 3, and step 6 is the one that fails.
$overflow --epochs 2 --out "$O/tenth" > "$O/result" 2> "$O/log"
code=$?
[ $code -eq 2 ] && [ "$failed_step" = 6 ] \
    && [ "$(steps "$O/tenth/model.safetensors")" = 3 ]
ok "without --save-every a save comes every tenth of the steps (exit $code)"

# --------------------------------------------------------------- refused

mkdir -p "$O/named"
cp -r "$O/third" "$O/named/third"
named="$T --model random --dim 32 --depth 1 --image 16 --batch 2 --epochs 1 \
--data $O/named/third --out $O/named_run"
$named > "$O/result" 2> "$O/log" && $named --resume > "$O/result" 2> "$O/log"
ok "the same data: going on"
mv "$O/named/third/train/a/1.ppm" "$O/named/third/train/a/9.ppm"
$named --resume > "$O/result" 2> "$O/log"
[ $? -eq 2 ] && grep -q 'other names, or another order' "$O/log"
ok "resuming with a renamed image is refused, with the reason"
mv "$O/named/third/train/a/9.ppm" "$O/named/third/train/a/1.ppm"
image "$O/named/third/train/a/1.ppm" 77
$named --resume > "$O/result" 2> "$O/log"
[ $? -eq 2 ] && grep -q 'other pixels' "$O/log"
ok "resuming with another image of that name is refused, with the reason"

# octal NUMBER...: bytes.
octal() {
    for byte in "$@"; do
        # shellcheck disable=SC2059  # the number is made here
        printf "\\$(printf %o "$byte")"
    done
}
mkdir -p "$O/idx"
for split in train t10k; do
    { octal 0 0 8 3 0 0 0 6 0 0 0 16 0 0 0 16
      awk 'BEGIN { for (i = 0; i < 1536; i++) printf "%c", 65 + i % 50 }'
    } > "$O/idx/$split-images-idx3-ubyte"
    octal 0 0 8 1 0 0 0 6 0 1 0 1 0 1 > "$O/idx/$split-labels-idx1-ubyte"
done
idx="$T --model random --dim 32 --depth 1 --image 16 --batch 2 --epochs 1 \
--data $O/idx --out $O/idx_run"
$idx > "$O/result" 2> "$O/log"
ok "finetune on IDX"
octal 0 0 8 1 0 0 0 6 0 1 0 1 1 0 > "$O/idx/train-labels-idx1-ubyte"
refused "resuming with other labels" 'other labels' $idx --resume

R=$O/by_epochs
cp "$R/model.safetensors" "$O/saved"
for change in "--lr 0.5;--lr" "--limit 199;--limit" "--mixup 0;--mixup" \
        "--seed 4;--seed" "--data shapes:100;--data" "--epochs 3;steps" \
        "--steps 25;steps" "--layer-decay 0.5;--layer-decay" \
        "--model $O/saved;--model"; do
    refused "resuming with ${change%;*}" "was trained .*${change#*;}" \
        $T $small --epochs 2 ${change%;*} --out "$R" --resume
done
refused "resuming with --mean" 'trained without --mean;' \
    $T $small --epochs 2 --mean 0.5,0.5,0.5 --std 0.2,0.2,0.2 --out "$R" \
    --resume
refused "nothing to resume" 'run without --resume to begin' $T $small \
    --out "$O/none" --resume
for change in 's/"adam.step":"24"/"adam.step":"25"/;is at step 25' \
        's/"splitmask":"1"/"splitmask":"2"/;later version' \
        's/"method":"finetune"/"method":"beegtune"/;not written by finetune'
do
    sed "${change%;*}" "$O/saved" > "$R/model.safetensors"
    refused "resuming where it ${change#*;}" "${change#*;}" \
        $T $small --epochs 2 --out "$R" --resume
done
head -c 3000 "$O/saved" > "$R/model.safetensors"
refuse "resuming from half a file" $T $small --epochs 2 --out "$R" --resume
cp "$O/saved" "$R/model.safetensors"
build/pretrain --data shapes:100 --dim 32 --depth 1 --vocab 16 --image 16 \
    --batch 8 --steps 2 --out "$O/model" > "$O/result" 2> "$O/log"
ok "a model of pretrain"
M=$O/model/model.safetensors
refused "pretrain going on with a file of finetune" 'not written by pretrain' \
    build/pretrain --data shapes:200 --dim 32 --depth 2 --image 16 \
    --batch 16 --steps 24 --out "$R" --resume
refused "finetune going on with a file of pretrain" 'not written by finetune' \
    $T --model random --data shapes:100 --out "$O/model" --resume

# The model that training began with may have gone.
cp "$M" "$O/began"
$T --model "$O/began" --data shapes:100 --batch 8 --epochs 2 \
    --out "$O/orphan" > "$O/result" 2> "$O/log"
rm -f "$O/began"
before=$(value finetune_top1 "$O/result")
$T --model "$O/began" --data shapes:100 --batch 8 --epochs 2 \
    --out "$O/orphan" --resume > "$O/result" 2> "$O/log" \
    && [ "$(value finetune_top1 "$O/result")" = "$before" ]
ok "resuming does not need the file of --model"
tune --epochs 2 --out "$R"
[ -s "$R/model.safetensors.old" ] && [ -s "$R/log.csv.old" ] \
    && grep -q 'earlier run' "$O/log"
ok "without --resume the earlier run is kept, and that is told"

# ---------------------------------------------------- embed and pictures

mkfifo "$O/fifo"                         # a device would be at risk
E="build/embed --model $M --input $O/two"
D="build/pictures --model $M --data shapes:100"
for program in embed pictures; do
    if [ $program = embed ]; then
        write="$E --output"
    else
        write="$D --out"
    fi
    $write "$O/good" > "$O/result" 2> "$O/log"
    ok "$program"
    cp "$O/good" "$O/target"

    # What a program that died left: not filled, and not in the way.
    echo "half a file" > "$O/target.part"
    ln -f "$O/target.part" "$O/half"
    $write "$O/target" > "$O/result" 2> "$O/log" \
        && cmp "$O/good" "$O/target" && [ ! -e "$O/target.part" ] \
        && [ "$(cat "$O/half")" = "half a file" ]
    ok "$program removes what a dead program left, and does not fill it"
    : > "$O/elsewhere"
    ln -s elsewhere "$O/target.part"
    refused "$program where .part is a link" 'in the way' \
        $write "$O/target"
    [ ! -s "$O/elsewhere" ]
    ok "$program does not write through a link"
    rm -f "$O/target.part"
    ln -s nowhere "$O/target.part"
    refused "$program where .part is a link to nothing" 'in the way' \
        $write "$O/target"
    [ ! -e "$O/nowhere" ]
    ok "$program does not make what a link names"
    rm -f "$O/target.part" "$O/nowhere"

    # The disk is full: the old file stays, nothing else does.
    echo "the old file" > "$O/target"
    (ulimit -f 0 && exec $write "$O/target" 2>&1) \
        | grep -q 'not written: .*make room\|too large; make room'
    [ "$(cat "$O/target")" = "the old file" ] && [ ! -e "$O/target.part" ]
    ok "$program without room keeps the old file"
    (ulimit -f 0 && exec $write "$O/target") > /dev/null 2>&1
    code=$?
    [ $code -eq 2 ]
    ok "$program without room ends with exit code 2 ($code)"

    refused "$program over its model" 'give another name' $write "$M"
    refused "$program over a folder" 'no ordinary file' $write "$O/whole"
    refused "$program over a pipe" 'no ordinary file' $write "$O/fifo"
    refused "$program in no folder" 'No such file' $write "$O/none/x"
    { sleep 0.3; $write "$O/piped"; } 2>&1 | true
    cmp "$O/good" "$O/piped" > "$O/log" 2>&1
    ok "$program into a closed pipe writes its file"
done

# Output and list of names belong together: either both are new or none is.
$E --output "$O/pair" > "$O/result" 2> "$O/log"
ok "embed writes its list of names"
cp "$O/pair" "$O/pair_before"
rm -f "$O/pair.csv"
mkdir "$O/pair.csv"
build/embed --model "$M" --input "$O/two/val" --output "$O/pair" \
    > "$O/result" 2> "$O/log"
code=$?
[ $code -eq 2 ] && [ ! -s "$O/result" ] && grep -q 'pair.csv' "$O/log" \
    && cmp "$O/pair_before" "$O/pair" && [ ! -e "$O/pair.part" ] \
    && [ ! -e "$O/pair.floats.part" ]
ok "embed whose list cannot be written keeps the old output ($code)"

cp "$M" "$O/list.csv"
refused "embed whose list would replace the model" 'give another name' \
    build/embed --model "$O/list.csv" --input "$O/two/val" --output "$O/list"

# Names that need quotes, in both lists.
mkdir "$O/quoted"
cp "$O/two/val/a/1.ppm" "$O/quoted/a\"b.ppm"
newline='a
b'
cp "$O/two/val/a/1.ppm" "$O/quoted/$newline.ppm"
build/embed --model "$M" --input "$O/quoted" --output "$O/named_rows" \
    > "$O/result" 2> "$O/log"
grep -q '/a""b.ppm"$' "$O/named_rows.csv"
ok "a quote in a name is doubled in the list"
head -c 2000 "$O/named_rows" | grep -q 'quoted/a\\\\u000ab.ppm'
ok "a line's end in a name is escaped in the metadata"

# So few floats that they reach the disk only when the buffer is flushed.
(ulimit -f 0 && exec build/embed --model "$M" \
    --input "$O/two/val/a/1.ppm" --output "$O/tiny" 2>&1) \
    | grep -q 'not written: .*make room'
[ $? -eq 0 ] && [ ! -e "$O/tiny" ] && [ ! -e "$O/tiny.part" ] \
    && [ ! -e "$O/tiny.floats.part" ] && [ ! -e "$O/tiny.csv.part" ]
ok "embed without room for one image says so"

# Two at a time: the second is refused, the first ends as if alone. A program
# that is stopped in mid-file still owns it.
if strace -o "$O/trace" true > /dev/null 2>&1; then
    : > "$O/trace"
    # The stop comes when the first .part is synced.
    strace -f -o "$O/trace" -e trace=fsync \
        -e inject=fsync:signal=SIGSTOP:when=1 \
        $E --output "$O/shared" > "$O/result" 2> "$O/log" &
    job=$!
    tries=0
    until grep -q 'stopped by SIGSTOP' "$O/trace" 2> /dev/null \
            || [ $tries -ge 200 ]; do
        tries=$((tries + 1))
        sleep 0.02
    done
    refused "embed to a file that another writes" 'another program' \
        $E --batch 3 --output "$O/shared"
    kill -CONT "$(awk '/stopped by SIGSTOP/ { print $1; exit }' "$O/trace")"
    wait $job
    code=$?
    [ $code -eq 0 ] && $E --output "$O/alone" > "$O/result" 2> "$O/log" \
        && cmp "$O/alone" "$O/shared" > "$O/log" 2>&1
    ok "and the first writes it whole"
    for write in "$E --output" "$D --out"; do
        strace -f -y -o "$O/trace" \
            -e trace=fsync,rename,renameat,renameat2 $write "$O/synced" \
            > "$O/result" 2> "$O/log" \
            && awk '/fsync.*synced.part/ { bytes = 1 }
                bytes && /rename.*synced.part"/ { name = 1 }
                name && /fsync.*saving>/ { folder = 1 }
                END { exit !folder }' "$O/trace"
        ok "${write%% *} syncs file and folder around the rename"
    done
else
    echo "skip two writers and fsync: need strace"
fi

# ------------------------------------------------------- standard output

if [ -c /dev/full ]; then
    for program in pretrain evaluate finetune embed pictures; do
        build/$program --help > /dev/full 2> "$O/log"
        [ $? -eq 2 ] && grep -q "^$program: standard output: " "$O/log"
        ok "$program --help on a full disk says so"
    done
    build/evaluate --model "$M" --data shapes:100 --knn > /dev/full \
        2> "$O/log"
    [ $? -eq 2 ] && grep -q '^evaluate: standard output: ' "$O/log"
    ok "evaluate on a full disk says so"
fi

cases_end
