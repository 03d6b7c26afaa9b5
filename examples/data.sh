#!/bin/sh
# CIFAR-10 (Krizhevsky 2009) into out/cifar10, for --data out/cifar10.
# Downloads 170 MB from the official site, checks them, unpacks six files.
#
#   sh examples/data.sh [FOLDER]      make data
#
# An archive that is already at FOLDER/cifar-10-binary.tar.gz is used instead
# of the network.
cd "$(dirname "$0")/.." || exit 2
folder=${1:-out/cifar10}
url=https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz
sum=c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd
archive=$folder/cifar-10-binary.tar.gz
files="data_batch_1.bin data_batch_2.bin data_batch_3.bin data_batch_4.bin
data_batch_5.bin test_batch.bin"

fail() {
    echo "data: $*" >&2
    exit 2
}

# Each file holds 10000 records of 3073 bytes.
all_there() {
    for file in $files; do
        [ -f "$folder/$file" ] || return 1
        [ "$(($(wc -c < "$folder/$file")))" -eq 30730000 ] || return 1
    done
}

sha256() {
    if command -v sha256sum > /dev/null 2>&1; then
        sha256sum < "$1"
    elif command -v shasum > /dev/null 2>&1; then
        shasum -a 256 < "$1"
    elif command -v openssl > /dev/null 2>&1; then
        openssl dgst -sha256 -r < "$1"
    else
        fail "no sha256sum, shasum or openssl to check the download with;" \
            "install one of them"
    fi
}

if all_there; then
    echo "data: $folder is complete"
    exit 0
fi
mkdir -p "$folder" || fail "$folder cannot be made"

if [ ! -f "$archive" ]; then
    echo "data: downloading $url" >&2
    # A moving picture of the download is for terminals only.
    if command -v curl > /dev/null 2>&1; then
        if [ -t 2 ]; then how=-#; else how=-sS; fi
        curl -fL "$how" --connect-timeout 20 -o "$archive.part" "$url"
    elif command -v wget > /dev/null 2>&1; then
        if [ -t 2 ]; then how=-v; else how=-nv; fi
        wget "$how" -T 20 -t 2 -O "$archive.part" "$url"
    else
        fail "needs curl or wget: install one, or download $url to" \
            "$archive yourself and run this again"
    fi
    # shellcheck disable=SC2181  # one check for either command
    if [ $? -ne 0 ]; then
        rm -f "$archive.part"
        fail "the download failed: is there a network? You can also" \
            "download $url to $archive yourself and run this again"
    fi
    mv "$archive.part" "$archive" || fail "$archive cannot be written"
fi

# The sum first, then maybe more words.
found=$(sha256 "$archive") || exit 2
found=${found%% *}
if [ "$found" != "$sum" ]; then
    fail "$archive has the checksum $found, not $sum: it is damaged or" \
        "another file; remove it and run this again"
fi

gzip -dc "$archive" | (cd "$folder" && tar -xf -) \
    || fail "$archive cannot be unpacked; is the disk full?"
mv "$folder"/cifar-10-batches-bin/* "$folder" \
    || fail "the unpacked files cannot be moved to $folder"
rmdir "$folder/cifar-10-batches-bin"
all_there || fail "$folder is not complete after unpacking; remove it and" \
    "run this again"
rm -f "$archive"
echo "data: $folder is complete: use --data $folder"
