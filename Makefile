# splitmask.h: POSIX make, a C compiler, nothing else.
#   make          all programs into build/
#   make run      pre-train on the built-in shapes, then evaluate (2 minutes)
#   make test     the test suite          make check   test, lint, matrix
#   make bench    the benchmark; CBLAS=openblas or DNNL=1 adds a peer
#   make pictures  the README's picture, after make run
#   make data     CIFAR-10 into out/cifar10, checked
#   make prefix P=foo_   a copy in build/ with every name renamed
#   make clean    make help

.POSIX:
CC = cc
CFLAGS = -O2
WARN = -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic
LIBS = -lm -lpthread
CXX = c++

PROGRAMS = build/pretrain build/evaluate build/finetune build/embed \
    build/pictures build/bench
SMALL = build/01_tape build/02_gradcheck build/03_user_op build/04_plan \
    build/05_patches build/06_tokenizers build/07_attention build/08_beit \
    build/09_splitmask build/10_probe build/11_threads build/12_inference \
    build/14_files build/15_own_images
SUPPORT = build/splitmask.o build/data.o build/augment.o build/options.o \
    build/progress.o build/report.o build/evaluation.o
HEADERS = splitmask.h examples/support/support.h \
    examples/support/evaluation.h examples/support/report.h \
    examples/support/shapes.h

all: $(PROGRAMS) $(SMALL)

help:
	@sed -n '1,11s/^# *//p' Makefile

build/made:
	@mkdir -p build
	@touch build/made

# ------------------------------------------------------------- programs

build/splitmask.o: examples/support/splitmask.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. -c examples/support/splitmask.c -o $@
build/data.o: examples/support/data.c $(HEADERS) build/made
	$(CC) $(WARN) $(CFLAGS) -I. -c examples/support/data.c -o $@
build/augment.o: examples/support/augment.c $(HEADERS) build/made
	$(CC) $(WARN) $(CFLAGS) -I. -c examples/support/augment.c -o $@
build/options.o: examples/support/options.c $(HEADERS) build/made
	$(CC) $(WARN) $(CFLAGS) -I. -c examples/support/options.c -o $@
build/progress.o: examples/support/progress.c $(HEADERS) build/made
	$(CC) $(WARN) $(CFLAGS) -I. -c examples/support/progress.c -o $@
build/report.o: examples/support/report.c $(HEADERS) build/made
	$(CC) $(WARN) $(CFLAGS) -I. -c examples/support/report.c -o $@
build/evaluation.o: examples/support/evaluation.c $(HEADERS) build/made
	$(CC) $(WARN) $(CFLAGS) -I. -c examples/support/evaluation.c -o $@

build/pretrain: examples/pretrain.c $(SUPPORT)
	$(CC) $(WARN) $(CFLAGS) -I. examples/pretrain.c $(SUPPORT) -o $@ $(LIBS)
build/evaluate: examples/evaluate.c $(SUPPORT)
	$(CC) $(WARN) $(CFLAGS) -I. examples/evaluate.c $(SUPPORT) -o $@ $(LIBS)
build/finetune: examples/finetune.c $(SUPPORT)
	$(CC) $(WARN) $(CFLAGS) -I. examples/finetune.c $(SUPPORT) -o $@ $(LIBS)
build/embed: examples/embed.c $(SUPPORT)
	$(CC) $(WARN) $(CFLAGS) -I. examples/embed.c $(SUPPORT) -o $@ $(LIBS)
build/pictures: examples/pictures.c $(SUPPORT)
	$(CC) $(WARN) $(CFLAGS) -I. examples/pictures.c $(SUPPORT) -o $@ $(LIBS)
build/bench: examples/bench.c build/splitmask.o
	$(CC) $(WARN) $(CFLAGS) -I. examples/bench.c build/splitmask.o -o $@ $(LIBS)

build/01_tape: examples/01_tape.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/01_tape.c -o $@ $(LIBS)
build/02_gradcheck: examples/02_gradcheck.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/02_gradcheck.c -o $@ $(LIBS)
build/03_user_op: examples/03_user_op.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/03_user_op.c -o $@ $(LIBS)
build/04_plan: examples/04_plan.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/04_plan.c -o $@ $(LIBS)
build/05_patches: examples/05_patches.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/05_patches.c -o $@ $(LIBS)
build/06_tokenizers: examples/06_tokenizers.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/06_tokenizers.c -o $@ $(LIBS)
build/07_attention: examples/07_attention.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/07_attention.c -o $@ $(LIBS)
build/08_beit: examples/08_beit.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/08_beit.c -o $@ $(LIBS)
build/09_splitmask: examples/09_splitmask.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/09_splitmask.c -o $@ $(LIBS)
build/10_probe: examples/10_probe.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/10_probe.c -o $@ $(LIBS)
build/11_threads: examples/11_threads.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/11_threads.c -o $@ $(LIBS)
build/12_inference: examples/12_inference.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/12_inference.c -o $@ $(LIBS)
build/14_files: examples/14_files.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/14_files.c -o $@ $(LIBS)
build/15_own_images: examples/15_own_images.c splitmask.h build/made
	$(CC) $(WARN) $(CFLAGS) -I. examples/15_own_images.c -o $@ $(LIBS)
build/13_cplusplus: examples/13_cplusplus.cpp splitmask.h build/made
	$(CXX) -std=c++11 $(CFLAGS) -I. examples/13_cplusplus.cpp -o $@ $(LIBS)

# ------------------------------------------------------------------ run

run: build/pretrain build/evaluate
	@sh examples/run.sh

data:
	@sh examples/data.sh

# The README's picture, from the model of `make run`.
MODEL = out/run/model.safetensors
pictures: build/pictures
	build/pictures --model $(MODEL) --out examples/pictures/splitmask.png

bench: build/bench
	@sh tests/bench.sh "$(CC)" "$(CBLAS)" "$(DNNL)"

# ---------------------------------------------------------------- tests

test: all
	@CC="$(CC)" CXX="$(CXX)" sh tests/run.sh

check: test
	@CC="$(CC)" sh tests/lint.sh
	@CC="$(CC)" sh tests/snippets.sh
	@sh tests/matrix.sh

# make prefix P=foo_ writes build/foo_splitmask.h with every name renamed.
prefix:
	@[ -n "$(P)" ] || { echo "make prefix: give P=foo_" >&2; exit 2; }
	@mkdir -p build
	@sed 's/smask_/$(P)/g;s/splitmask\.h"/$(P)splitmask.h"/' \
	    splitmask.h > build/$(P)splitmask.h

clean:
	rm -rf build

.PHONY: all help run data pictures bench test check prefix clean
