#!/bin/sh
# make run: pre-train on shapes drawn by the program itself, then ask what the
# encoder has learnt, and what it would know without. About two minutes on two
# cores. The shapes' classes differ by form alone: number, places, sizes,
# angles and grain are drawn anew for each image.
#   sh examples/run.sh [OUT]       OUT: where to write      [out/run]
#   SEED=2 make run                another seed             [1]
#   MORE=--bf16 make run           more options for pretrain
OUT=${1:-out/run}
MODEL="--dim 64 --depth 4 --heads 2 --image 32 --patch 4"
# K-means tokens: with random directions neighbours learn less than half as
# much in this time. Hardly any crop: its scale would be one more thing that
# the halves have in common.
HOW="--tokenizer kmeans --vocab 128 --decoder-depth 1 --batch 64 --steps 1200 \
--crop 0.9 --lr 1e-3 ${MORE:-}"
SEED=${SEED:-1}

# value NAME FILE: the number of a result line.
value() { awk -v name="$1" '$1 == name { printf "%.1f", $2 }' "$2"; }

mkdir -p "$OUT" || exit 2
echo "Pre-training without labels"
# shellcheck disable=SC2086  # several words are meant
build/pretrain --data shapes $MODEL $HOW --seed "$SEED" --out "$OUT" \
    > "$OUT/pretrain" || exit
cat "$OUT/pretrain"
echo
echo "Asking for classes"
build/evaluate --data shapes --model "$OUT/model.safetensors" \
    > "$OUT/trained" || exit
# shellcheck disable=SC2086
build/evaluate --data shapes --model random $MODEL --seed "$SEED" \
    > "$OUT/random" || exit

echo
echo "Right on the test images of shapes, in percent; blind guessing: 10"
printf '  %-28s %8s %8s\n' "" "kNN" "probe"
printf '  %-28s %8s %8s\n' "plain pixels" \
    "$(value raw_knn_top1 "$OUT/trained")" "-" \
    "random encoder" "$(value knn_top1 "$OUT/random")" \
    "$(value probe_top1 "$OUT/random")" \
    "pre-trained encoder" "$(value knn_top1 "$OUT/trained")" \
    "$(value probe_top1 "$OUT/trained")"
echo
echo "Curves and pictures: $OUT/report.html"
