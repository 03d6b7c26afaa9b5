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

# A new file is a name in one of these lists and a line under `sources`.
PROGRAMS = build/pretrain build/evaluate build/finetune build/embed \
    build/pictures
SMALL = build/01_tape build/02_gradcheck build/03_user_op build/04_plan \
    build/05_patches build/06_tokenizers build/07_attention build/08_beit \
    build/09_splitmask build/10_probe build/11_threads build/12_inference \
    build/14_files build/15_own_images
SUPPORT = build/data.o build/records.o build/classes.o build/folder.o \
    build/image.o build/decode.o build/checks.o build/augment.o \
    build/options.o build/progress.o \
    build/saving.o build/run.o build/report.o build/report_png.o \
    build/report_tokens.o build/report_plots.o build/report_pictures.o \
    build/evaluation.o build/probe.o build/weights.o
OBJECTS = build/splitmask.o $(SUPPORT)
HEADERS = splitmask.h examples/support/support.h examples/support/data.h \
    examples/support/evaluation.h examples/support/report.h \
    examples/support/report_parts.h examples/support/run.h \
    examples/support/shapes.h
B = tests/bench
BENCH = $B/main.c $B/measure.c $B/gemm.c $B/peers.c $B/op.c $B/model.c \
    $B/profile.c $B/parts.c $B/scale.c
COMPILE = $(CC) $(WARN) $(CFLAGS) -I.

all: $(PROGRAMS) $(SMALL) build/bench

help:
	@sed -n '1,11s/^# *//p' Makefile

build/made:
	@mkdir -p build
	@touch build/made

# ------------------------------------------------------------- programs

$(OBJECTS): splitmask.h build/made
	$(COMPILE) -c examples/support/$(@F:.o=.c) -o $@
$(SUPPORT): $(HEADERS)
$(PROGRAMS): $(OBJECTS)
	$(COMPILE) examples/$(@F).c $(OBJECTS) -o $@ $(LIBS)
$(SMALL): splitmask.h build/made
	$(COMPILE) examples/$(@F).c -o $@ $(LIBS)
build/bench: $(BENCH) $B/bench.h $(OBJECTS)
	$(COMPILE) $(BENCH) $(OBJECTS) -o $@ $(LIBS)
build/13_cplusplus: examples/13_cplusplus.cpp splitmask.h build/made
	$(CXX) -std=c++11 $(CFLAGS) -I. examples/13_cplusplus.cpp -o $@ $(LIBS)

# ------------------------------------------------------------- sources

build/splitmask.o: examples/support/splitmask.c
build/data.o: examples/support/data.c
build/records.o: examples/support/records.c
build/classes.o: examples/support/classes.c
build/folder.o: examples/support/folder.c
build/image.o: examples/support/image.c
build/decode.o: examples/support/decode.c
build/checks.o: examples/support/checks.c
build/augment.o: examples/support/augment.c
build/options.o: examples/support/options.c
build/progress.o: examples/support/progress.c
build/saving.o: examples/support/saving.c
build/run.o: examples/support/run.c
build/report.o: examples/support/report.c
build/report_png.o: examples/support/report_png.c
build/report_tokens.o: examples/support/report_tokens.c
build/report_plots.o: examples/support/report_plots.c
build/report_pictures.o: examples/support/report_pictures.c
build/evaluation.o: examples/support/evaluation.c
build/probe.o: examples/support/probe.c
build/weights.o: examples/support/weights.c

build/pretrain: examples/pretrain.c
build/evaluate: examples/evaluate.c
build/finetune: examples/finetune.c
build/embed: examples/embed.c
build/pictures: examples/pictures.c

build/01_tape: examples/01_tape.c
build/02_gradcheck: examples/02_gradcheck.c
build/03_user_op: examples/03_user_op.c
build/04_plan: examples/04_plan.c
build/05_patches: examples/05_patches.c
build/06_tokenizers: examples/06_tokenizers.c
build/07_attention: examples/07_attention.c
build/08_beit: examples/08_beit.c
build/09_splitmask: examples/09_splitmask.c
build/10_probe: examples/10_probe.c
build/11_threads: examples/11_threads.c
build/12_inference: examples/12_inference.c
build/14_files: examples/14_files.c
build/15_own_images: examples/15_own_images.c

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
	@sh $B/bench.sh "$(CC)" "$(CBLAS)" "$(DNNL)"

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
