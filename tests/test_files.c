/* test_files.c: safetensors out and in.

   Three promises: what was written is read back to the last bit, so that a
   resumed run equals one that never stopped; files of other programs are
   read; a broken or malicious file causes an error and nothing worse. Run
   the last with -fsanitize=address,undefined. */
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>

/* --------------------------------------------------- a file in memory */

typedef struct memory {
    unsigned char *data;
    size_t size, at, room;
    size_t limit;                    /* bytes a writer takes; 0: all       */
} memory;

static size_t memory_write(void *user, const void *data, size_t bytes)
{
    memory *m = (memory *)user;

    if (m->limit > 0 && m->size + bytes > m->limit)
        bytes = m->limit > m->size ? m->limit - m->size : 0;
    if (m->size + bytes > m->room) {
        m->room = 2 * (m->size + bytes) + 1024;
        m->data = (unsigned char *)realloc(m->data, m->room);
        if (m->data == NULL) abort();
    }
    if (bytes > 0) memcpy(m->data + m->size, data, bytes);
    m->size += bytes;
    return bytes;
}

static size_t memory_read(void *user, void *data, size_t bytes)
{
    memory *m = (memory *)user;
    const size_t left = m->size - m->at;

    if (bytes > left) bytes = left;
    if (bytes > 0) memcpy(data, m->data + m->at, bytes);
    m->at += bytes;
    return bytes;
}

static smask_io io_of(memory *m)
{
    smask_io io;

    io.read = memory_read;
    io.write = memory_write;
    io.user = m;
    return io;
}

/* A file from the text of a header and a number of data bytes, all 0. */
static memory file_of(const char *header, size_t data_bytes)
{
    memory m;
    const size_t n = strlen(header);
    unsigned char length[8];
    int i;

    memset(&m, 0, sizeof m);
    for (i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)n >> (8 * i) & 0xff);
    memory_write(&m, length, 8);
    memory_write(&m, header, n);
    for (; data_bytes > 0; data_bytes--) memory_write(&m, "", 1);
    return m;
}

/* ------------------------------------------------------------- a model */

#define SIDE 8
#define BATCH 4

typedef struct model {
    smask_ctx c;
    smask_vit v;
    smask_tokenizer t;
    smask_adam a;
    smask_ema e;
} model;

static smask_vit_desc small_desc(void)
{
    smask_vit_desc d;

    memset(&d, 0, sizeof d);
    d.image = SIDE;
    d.channels = 1;
    d.dim = 16;
    d.depth = 2;
    d.heads = 2;
    d.mlp_ratio = 2;
    d.vocabulary = 12;
    d.decoder_depth = 1;
    d.drop_path = 0.1f;
    return d;
}

static void make(model *m, const smask_vit_desc *d, uint64_t seed,
    int euclidean)
{
    smask_tokenizer_desc words;
    smask_adam_desc adam;
    smask_desc desc;

    memset(&desc, 0, sizeof desc);
    desc.seed = seed;
    desc.memory_size = (size_t)4 << 20;
    desc.inference = d->weights != NULL;
    memset(&words, 0, sizeof words);
    words.image = SIDE;
    words.channels = d->channels > 0 ? d->channels : 3;
    words.vocabulary = 12;
    words.euclidean = euclidean;
    memset(&adam, 0, sizeof adam);
    adam.lr = 3e-3f;
    adam.steps = 8;
    SAME(smask_setup(&m->c, &desc), SMASK_OK);
    SAME(smask_vit_init(&m->c, &m->v, d), SMASK_OK);
    SAME(smask_tokenizer_init(&m->c, &m->t, &words), SMASK_OK);
    if (d->weights != NULL) return;
    SAME(smask_adam_init(&m->c, &m->a, &adam, &m->v.params), SMASK_OK);
    SAME(smask_ema_init(&m->c, &m->e, 0.9f, &m->v.params), SMASK_OK);
}

static void train(model *m, int steps, int first)
{
    static float images[BATCH * SIDE * SIDE];
    smask_random r;
    int step, i;

    for (step = first; step < first + steps; step++) {
        smask_tensor *loss;
        smask_seed(&r, 99, (uint64_t)step);
        for (i = 0; i < BATCH * SIDE * SIDE; i++)
            images[i] = smask_normal(&r);
        smask_begin_step(&m->c);
        loss = (m->v.mask != NULL ? smask_beit_loss : smask_splitmask_loss)(
            &m->c, &m->v, &m->t, NULL, images, BATCH, NULL);
        if (smask_backward(&m->c, loss) == SMASK_OK)
            smask_adam_update(&m->c, &m->a, &m->v.params);
        smask_ema_update(&m->c, &m->e, &m->v.params);
        smask_end_step(&m->c);
    }
    CHECK_TEXT(smask_detail(&m->c), "");
}

/* NULL: the moments and the mean of a tensor that does not learn. */
static int same_floats(const float *a, const float *b, size_t count)
{
    return a == NULL || b == NULL ? a == b
        : memcmp(a, b, count * sizeof *a) == 0;
}

/* The same weights, moments and means, to the bit? */
static int same_model(const model *a, const model *b, int training)
{
    int32_t i;
    int same = a->v.params.count == b->v.params.count;

    for (i = 0; same && i < a->v.params.count; i++) {
        const size_t n = smask_count(a->v.params.item[i].t);
        same = same_floats(a->v.params.item[i].t->x,
            b->v.params.item[i].t->x, n);
        if (training)
            same = same && same_floats(a->a.m[i], b->a.m[i], n)
                && same_floats(a->a.v[i], b->a.v[i], n)
                && same_floats(a->e.mean[i], b->e.mean[i], n);
    }
    return same && (!training || (a->a.step == b->a.step
        && a->c.random.state == b->c.random.state
        && a->c.random.stream == b->c.random.stream));
}

static memory write_model(model *m, int all, const smask_metadata *metadata,
    int32_t count)
{
    memory file;
    smask_io io;

    memset(&file, 0, sizeof file);
    io = io_of(&file);
    SAME(smask_write(&m->c, &io, &m->v, all ? &m->t : NULL,
        all ? &m->a : NULL, all ? &m->e : NULL, metadata, count), SMASK_OK);
    return file;
}

/* Open and read all of it, from the beginning. */
static smask_result read_model(model *m, memory *file, int all,
    int32_t *missing)
{
    smask_file f;
    smask_io io = io_of(file);
    smask_result result;

    file->at = 0;
    smask_begin_step(&m->c);
    result = smask_open(&m->c, &f, &io);
    if (result == SMASK_OK)
        result = smask_read(&m->c, &f, &m->v, all ? &m->t : NULL,
            all ? &m->a : NULL, all ? &m->e : NULL, missing);
    smask_end_step(&m->c);
    return result;
}

/* Open in a new context; the detail must contain what is expected. */
static int opens(memory *file, smask_result expected, const char *detail)
{
    static unsigned char arena[1 << 16];
    smask_desc desc;
    smask_ctx c;
    smask_file f;
    smask_io io = io_of(file);
    smask_result result;
    int good;

    memset(&desc, 0, sizeof desc);
    desc.memory = arena;
    desc.memory_size = sizeof arena;
    file->at = 0;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    result = smask_open(&c, &f, &io);
    good = SAME(result, expected);
    if (good && detail != NULL
        && !CHECK(strstr(smask_detail(&c), detail) != NULL)) {
        printf("    said: %s\n", smask_detail(&c));
        good = 0;
    }
    smask_shutdown(&c);
    return good;
}

/* --------------------------------------------------------- round trips */

#define VIT_FIELDS(X) X(image) X(patch) X(channels) X(dim) X(depth)         \
    X(heads) X(mlp_ratio) X(vocabulary) X(decoder_depth) X(class_token)     \
    X(pool_class) X(sincos) X(relative_bias) X(no_position)                 \
    X(no_decoder_embed)                                                     \
    X(decoder_shares_position) X(mask_token) X(classes) X(layer_scale)      \
    X(drop_path)
#define TOKENIZER_FIELDS(X) X(kind) X(image) X(patch) X(channels)           \
    X(vocabulary) X(half_resolution) X(centre) X(uniform01) X(euclidean)

static void same_descs(const model *m, memory *file)
{
    smask_vit_desc d;
    smask_tokenizer_desc w;
    smask_ctx c;
    smask_file f;
    smask_io io = io_of(file);

    file->at = 0;
    smask_setup(&c, NULL);
    SAME(smask_open(&c, &f, &io), SMASK_OK);
    SAME(smask_read_vit_desc(&c, &f, &d), SMASK_OK);
    SAME(smask_read_tokenizer_desc(&c, &f, &w), SMASK_OK);
#define FIELD(name) NEAR(d.name, m->v.desc.name, 0);
    VIT_FIELDS(FIELD)
#undef FIELD
#define FIELD(name) SAME(w.name, m->t.desc.name);
    TOKENIZER_FIELDS(FIELD)
#undef FIELD
    smask_shutdown(&c);
}

/* Models of every kind: what is written is what is read. */
static void round_trip(void)
{
    static model a, b;
    int kind;

    for (kind = 0; kind < 6; kind++) {
        smask_vit_desc d = small_desc();
        int32_t missing = -1;
        memory file;
        if (kind == 1) d.class_token = d.pool_class = d.mask_token = 1;
        if (kind == 2) d.relative_bias = d.no_position = d.mask_token = 1;
        if (kind == 3) d.relative_bias = 2;
        if (kind == 3) d.mask_token = 1;
        if (kind == 3) d.layer_scale = 0.1f;
        if (kind == 4) d.no_decoder_embed = d.decoder_shares_position = 1;
        if (kind == 5) d.sincos = 1;
        if (kind == 5) d.classes = 7;
        make(&a, &d, 1, kind == 2);
        make(&b, &d, 2, kind == 2);
        train(&a, 2, 0);
        CHECK(!same_model(&a, &b, 0));
        file = write_model(&a, 1, NULL, 0);
        same_descs(&a, &file);
        memset(b.t.codebook, 0, (size_t)12 * (size_t)b.t.width * 4);
        SAME(read_model(&b, &file, 1, &missing), SMASK_OK);
        SAME(missing, 0);
        SAME(file.at, file.size);
        CHECK(same_model(&a, &b, 1));
        CHECK(same_floats(a.t.codebook, b.t.codebook,
            (size_t)12 * (size_t)a.t.width));
        if (kind == 2) CHECK(same_floats(a.t.offset, b.t.offset, 12));
        free(file.data);
        smask_shutdown(&a.c);
        smask_shutdown(&b.c);
    }
}

/* A run that was stopped and resumed equals one that was not. */
static void training_resumes(void)
{
    static model whole, first, second;
    const smask_vit_desc d = small_desc();
    int32_t missing;
    memory file;

    make(&whole, &d, 1, 0);
    train(&whole, 8, 0);
    make(&first, &d, 1, 0);
    train(&first, 5, 0);
    file = write_model(&first, 1, NULL, 0);
    make(&second, &d, 77, 0);
    SAME(read_model(&second, &file, 1, &missing), SMASK_OK);
    SAME(second.a.step, 5);
    train(&second, 3, 5);
    CHECK(same_model(&whole, &second, 1));
    free(file.data);
    smask_shutdown(&whole.c);
    smask_shutdown(&first.c);
    smask_shutdown(&second.c);
}

/* The bytes themselves: length, padding, little-endian floats. */
static void bytes_of_a_file(void)
{
    static const char expected[] = "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
        "\"b.c\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[8,20]}}";
    static const float x[2] = { 1, -2.5f }, y[3] = { 0, 1e-40f, 3 };
    static const unsigned char bytes[20] = { 0, 0, 0x80, 0x3f,
        0, 0, 0x20, 0xc0, 0, 0, 0, 0, 0xc2, 0x16, 0x01, 0, 0, 0, 0x40,
        0x40 };
    const smask_shape shapes[2] = { { "a", 2, { 2, 1, 0, 0 } },
        { "b.c", 1, { 3, 0, 0, 0 } } };
    smask_writer w;
    smask_ctx c;
    memory file;
    smask_io io;
    size_t header, i;

    memset(&file, 0, sizeof file);
    io = io_of(&file);
    smask_setup(&c, NULL);
    SAME(smask_write_begin(&c, &w, &io, shapes, 2, NULL, 0), SMASK_OK);
    smask_write_floats(&c, &w, x, 2);
    smask_write_floats(&c, &w, y, 3);
    SAME(smask_write_end(&c, &w), SMASK_OK);
    header = file.data[0] + 256u * file.data[1];
    for (i = 2; i < 8; i++) SAME(file.data[i], 0);
    SAME(header % 8, 0);
    SAME(file.size, 8 + header + sizeof bytes);
    CHECK(memcmp(file.data + 8, expected, sizeof expected - 1) == 0);
    for (i = sizeof expected - 1; i < header; i++)
        SAME(file.data[8 + i], ' ');
    CHECK(memcmp(file.data + 8 + header, bytes, sizeof bytes) == 0);
    io.write = NULL;
    SAME(smask_write_begin(&c, &w, &io, shapes, 2, NULL, 0), SMASK_ARG);
    smask_shutdown(&c);
    free(file.data);
}

/* ---------------------------------------------------------------- notes */

static void notes_come_back(void)
{
    static const char german[] = "gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac "
        "\xf0\x9f\x8e\xad";
    static const char *keys[] = { "a", "b c", "d", "\xc3\xa9", "" };
    static const char *odd[] = { "", "plain", "quote \" and \\ and /",
        german, "0123456789012345678901234567890123456789" };
    static model a;
    const smask_vit_desc d = small_desc();
    smask_metadata metadata[6];
    char out[256];
    smask_file f;
    memory file;
    smask_io io;
    int32_t i;

    make(&a, &d, 1, 0);
    for (i = 0; i < 5; i++) {
        metadata[i].key = keys[i];
        metadata[i].value = odd[i];
    }
    metadata[5].key = "codes";              /* these become blanks            */
    metadata[5].value = "line\nfeed\ttab\x01\x1f";
    file = write_model(&a, 0, metadata, 6);
    io = io_of(&file);
    SAME(smask_open(&a.c, &f, &io), SMASK_OK);
    for (i = 0; i < 5; i++) {
        SAME(smask_read_metadata(&f, metadata[i].key, out, sizeof out),
            strlen(odd[i]));
        CHECK_TEXT(out, odd[i]);
    }
    smask_read_metadata(&f, "codes", out, sizeof out);
    CHECK_TEXT(out, "line feed tab  ");
    SAME(smask_read_metadata(&f, "none", out, sizeof out), -1);
    CHECK_TEXT(out, "");
    SAME(smask_read_metadata(&f, "a\"", NULL, 0), -1);
    SAME(smask_read_metadata(&f, "b c", out, 6), 5);
    CHECK_TEXT(out, "plain");
    SAME(smask_read_metadata(&f, "b c", out, 4), 5);
    CHECK_TEXT(out, "pla");
    SAME(smask_read_metadata(&f, "b c", NULL, 0), 5);
    CHECK_TEXT((smask_read_metadata(&f, "embed_dim", out, 9), out), "16");
    free(file.data);
    smask_shutdown(&a.c);
}

/* Fractions are read back to the last bit; invalid ones as 0. */
static void fractions_are_exact(void)
{
    static const float odd[][2] = { { 0, 0 }, { 0.1f, 0.1f },
        { 1e-5f, 0.99999994f }, { 3.4028235e38f, 1e-40f }, { -1, 0 } };
    static model a;
    const smask_vit_desc d = small_desc();
    smask_random r;
    int i;

    make(&a, &d, 1, 0);
    smask_seed(&r, 3, 0);
    for (i = 0; i < 1000; i++) {
        smask_vit_desc told;
        smask_file f;
        memory file;
        smask_io io;
        a.v.desc.layer_scale = i < 5 ? odd[i][0] : ldexpf(smask_uniform(&r),
            (int)smask_below(&r, 240) - 120);
        a.v.desc.drop_path = i < 5 ? odd[i][1] : smask_uniform(&r);
        file = write_model(&a, 0, NULL, 0);
        io = io_of(&file);
        smask_begin_step(&a.c);
        SAME(smask_open(&a.c, &f, &io), SMASK_OK);
        SAME(smask_read_vit_desc(&a.c, &f, &told), SMASK_OK);
        NEAR(told.layer_scale, i == 4 ? 0 : a.v.desc.layer_scale, 0);
        NEAR(told.drop_path, a.v.desc.drop_path, 0);
        smask_end_step(&a.c);
        free(file.data);
    }
    smask_shutdown(&a.c);
}

/* ---------------------------------------------------------- broken files */

/* A file cut short anywhere fails: at every byte of the header, and at every
   seventh of the floats, which all are alike. */
static void cut_at_every_byte(void)
{
    static model a, b;
    smask_vit_desc d = small_desc();
    memory file;
    size_t whole, header, n;

    d.dim = 8;
    d.depth = 1;
    d.mlp_ratio = 1;
    d.decoder_depth = 0;
    make(&a, &d, 1, 0);
    make(&b, &d, 2, 0);
    file = write_model(&a, 1, NULL, 0);
    whole = file.size;
    header = file.data[0] + 256u * file.data[1];
    for (n = 0; n < whole; n += n < header + 100 ? 1 : 7) {
        file.size = n;
        SAME(read_model(&b, &file, 1, NULL), SMASK_IO);
        smask_clear(&b.c);
    }
    file.size = whole - 1;
    SAME(read_model(&b, &file, 1, NULL), SMASK_IO);
    smask_clear(&b.c);
    file.size = whole;
    /* A header whose stated length is too short. */
    for (n = 0; n + 1 < header; n++) {
        smask_result result;
        file.data[0] = (unsigned char)(n & 0xff);
        file.data[1] = (unsigned char)(n >> 8);
        result = read_model(&b, &file, 1, NULL);
        if (result != SMASK_FORMAT) CHECK(result == SMASK_OK
            && file.data[8 + n] == ' ');
        smask_clear(&b.c);
    }
    free(file.data);
    smask_shutdown(&a.c);
    smask_shutdown(&b.c);
}

static void wrong_lengths(void)
{
    memory file = file_of("{}", 0);
    int i;

    CHECK(opens(&file, SMASK_OK, NULL));
    for (i = 1; i < 8; i++) {            /* 2^8 + 2 .. 2^56 + 2 bytes      */
        file.data[i] = 1;
        CHECK(opens(&file, i < 2 ? SMASK_IO : i < 4 ? SMASK_MEMORY
            : SMASK_FORMAT, NULL));
        file.data[i] = 0;
    }
    memset(file.data, 0xff, 8);
    CHECK(opens(&file, SMASK_FORMAT, "impossible header length"));
    memcpy(file.data, "\x89PNG\r\n\x1a\n", 8);
    CHECK(opens(&file, SMASK_FORMAT, "not a safetensors"));
    memset(file.data, 0, 8);
    CHECK(opens(&file, SMASK_FORMAT, NULL));
    file.data[0] = 1;
    CHECK(opens(&file, SMASK_FORMAT, NULL));
    free(file.data);
}

#define T(shape, begin, end) "{\"dtype\":\"F32\",\"shape\":" shape          \
    ",\"data_offsets\":[" begin "," end "]}"

/* Headers with one error each, and the text that reports it. */
static void malicious_headers(void)
{
    static const struct { const char *header, *detail; } bad[] = {
        { "[]", "byte 0" },
        { "{ ", "byte 2" },
        { "{}}", "byte 2" },
        { "{} x", "byte 3" },
        { "{\"a\"}", "byte 4" },
        { "{\"a\":1}", "byte 5" },
        { "{\"a\":null}", "byte 5" },
        { "{\"a\":{}}", "byte 7" },
        { "{a:" T("[1]", "0", "4") "}", "byte 1" },
        { "{'a':" T("[1]", "0", "4") "}", "byte 1" },
        { "{\"a\":" T("[1]", "0", "4") ",}", "byte" },
        { "{,\"a\":" T("[1]", "0", "4") "}", "byte 1" },
        { "{\"a\" " T("[1]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[1]", "0", "4") "\"b\":" T("[1]", "4", "8") "}",
            "byte" },
        /* sizes */
        { "{\"a\":" T("[99999999999999999999]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[18446744073709551615,2]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[4294967296,4294967296]", "0", "0") "}", "byte" },
        { "{\"a\":" T("[4611686018427387904]", "0", "0") "}",
            "byte" },
        { "{\"a\":" T("[1]", "0", "99999999999999999999") "}", "byte" },
        { "{\"a\":" T("[1]", "4", "0") "}", "byte" },
        { "{\"a\":" T("[1]", "0", "3") "}", "byte" },
        { "{\"a\":" T("[2]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[-1]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[1.0]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[1e0]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[01]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[1,]", "0", "4") "}", "byte" },
        { "{\"a\":" T("[,1]", "0", "4") "}", "byte" },
        { "{\"a\":" T("1", "0", "4") "}", "byte" },
        { "{\"a\":" T("[1", "0", "4") "}", "byte" },
        { "{\"a\":" T("[1]", "-0", "4") "}", "byte" },
        { "{\"a\":" T("[\"1\"]", "0", "4") "}", "byte" },
        /* places */
        { "{\"a\":" T("[1]", "4", "8") "}", "gap" },
        { "{\"a\":" T("[1]", "0", "4") ",\"b\":" T("[1]", "8", "12") "}",
            "gap" },
        { "{\"a\":" T("[2]", "0", "8") ",\"b\":" T("[2]", "4", "12") "}",
            "overlap" },
        { "{\"a\":" T("[1]", "0", "4") ",\"b\":" T("[1]", "0", "4") "}",
            "overlap" },
        { "{\"a\":" T("[2]", "0", "8") ",\"b\":" T("[1]", "4", "8") "}",
            "overlap" },
        /* keys */
        { "{\"__metadata__\":{},\"__metadata__\":{}}", "byte" },
        { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}",
            "byte" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "byte" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "byte" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", "byte" },
        { "{\"a\":{\"type\":\"F32\"}}", "byte" },
        { "{\"a\":{\"dtype\":32}}", "byte" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0]}}", "byte" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4,8]}}", "byte" },
        { "{\"__metadata__\":[]}", "byte" },
        { "{\"__metadata__\":{\"a\":1}}", "byte" },
        { "{\"__metadata__\":{\"a\":{}}}", "byte" },
        { "{\"__metadata__\":{\"a\":\"b\",}}", "byte" },
        { "{\"__metadata__\":{\"a\":\"b\"}", "byte" },
        { "{\"a\":{\"dtype\":\"F7\",\"shape\":[2],\"data_offsets\":[0,8]}}",
            "(a, dtype)" },
        { "{\"a\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,8]}}",
            "(a, data_offsets)" },
        { "{\"bc\":{\"dtype\":\"F32\",\"shape\":[\"1\"]}}", "(bc, shape)" },
        { "{\"a\":" T("[1]", "0", "4") ",\"a\":" T("[1]", "4", "8") "}",
            "(a, is there twice)" },
        { "{\"a\":" T("[1]", "0", "4") ",\"\\u0061\":" T("[1]", "4", "8")
            "}", "is there twice" },
        { "{\"__metadata__\":nul}", "byte" },
        { "{\"a\":{\"x\":}}", "byte" },
        { "{\"a\":{\"x\":{]]}", "byte" },
        { "{\"a\":{\"x\":\"\n\"}}", "byte" },
        /* strings */
        { "{\"\xff\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"\xc0\xaf\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"\xed\xa0\x80\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"\t\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"\\q\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"\\ud800\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"\\u00g0\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"\\u\x10\x10\x14\x11\":" T("[1]", "0", "4") "}", "byte 2" },
        { "{\"a", "byte" },
        { "{\"a\\", "byte" },
        { "{\"a\\\"", "byte" },
        { "{\"\\u", "byte" },
        { "{\"\\u0061", "byte" },
        { "{\"\xf0\x9f\x8e", "byte" }
    };
    size_t i;

    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memory file = file_of(bad[i].header, 16);
        if (!CHECK(opens(&file, SMASK_FORMAT, bad[i].detail)))
            printf("    header %s\n", bad[i].header);
        free(file.data);
    }
}

/* Nesting takes no stack: the parser does not recurse. */
static void deep_nests(void)
{
    static const char *open[] = { "[", "{\"a\":", "{\"a\":[" };
    static char text[40000];
    size_t kind, n;

    for (kind = 0; kind < 3; kind++) {
        memory file;
        text[0] = '\0';
        strcpy(text, "{\"__metadata__\":");
        for (n = strlen(text); n + 8 < sizeof text; n += strlen(open[kind]))
            strcpy(text + n, open[kind]);
        file = file_of(text, 0);
        CHECK(opens(&file, SMASK_FORMAT, NULL));
        free(file.data);
        strcpy(text, "{\"a\":{\"shape\":");
        for (n = strlen(text); n + 8 < sizeof text; n += strlen(open[kind]))
            strcpy(text + n, open[kind]);
        file = file_of(text, 0);
        CHECK(opens(&file, SMASK_FORMAT, NULL));
        free(file.data);
    }
}

/* Unusual, but right: these open. */
static void unusual_headers(void)
{
    static const char *good[] = {
        "{}", " {} \n\t\r ", "{\"__metadata__\":{}}",
        "{\"a\":" T("[1]", "0", "4") "}",
        "{\"a\":" T("[]", "0", "4") "}",
        "{\"a\":" T("[0]", "0", "0") "}",
        "{\"a\":" T("[0]", "0", "0") ",\"b\":" T("[0,7]", "0", "0")
            ",\"c\":" T("[2]", "0", "8") ",\"d\":" T("[0]", "8", "8") "}",
        "{\"b\":" T("[1]", "4", "8") ",\"a\":" T("[1]", "0", "4") "}",
        "{\"a\":" T("[1]", "0", "4") ",\"__metadata__\":{\"k\":\"v\"}}",
        "{ \"a\" : { \"data_offsets\" : [ 0 , 4 ] , \"shape\" : [ 1 ] ,\n"
            "\"dtype\" : \"F32\" } }",
        "{\"a\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[9],\"data_offsets\":"
            "[0,9]}}",
        "{\"__metadata__\":null}", "{ \"__metadata__\" : null ,\"a\":"
            T("[1]", "0", "4") "}",
        "{\"a\":{\"x\":1,\"dtype\":\"F32\",\"y\":{\"z\":[1,{},\"]}\"]},"
            "\"shape\":[1],\"data_offsets\":[0,4],\"w\":null}}",
        "{\"a\":" T("[1,1,1,1,1,2]", "0", "8") "}",
        "{\"\":" T("[1]", "0", "4") "}",
        "{\"\\ud83c\\udfad \\n\\\"\\\\\\/\\b\\f\\r\\t\":" T("[1]", "0", "4")
            "}"
    };
    size_t i;

    for (i = 0; i < sizeof good / sizeof good[0]; i++) {
        memory file = file_of(good[i], 16);
        if (!CHECK(opens(&file, SMASK_OK, NULL)))
            printf("    header %s\n", good[i]);
        free(file.data);
    }
}

/* The entries, in file order. */
static void entries_tell(void)
{
    memory file = file_of("{\"late\":" T("[1,2]", "8", "16") ",\"e\":"
        "{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]},"
        "\"six\":" T("[1,1,1,1,1,2]", "16", "24") "}", 24);
    smask_ctx c;
    smask_file f;
    smask_io io = io_of(&file);

    smask_setup(&c, NULL);
    SAME(smask_open(&c, &f, &io), SMASK_OK);
    SAME(f.count, 3);
    SAME(f.entry[0].name_bytes, 1);
    CHECK(memcmp(f.entry[0].name, "e", 1) == 0);
    SAME(f.entry[0].type, 2);
    SAME(f.entry[0].shape[0], 4);
    CHECK(memcmp(f.entry[1].name, "late", 4) == 0);
    SAME(f.entry[1].type, 0);
    SAME(f.entry[1].rank, 2);
    SAME(f.entry[1].begin, 8);
    SAME(f.entry[1].end, 16);
    CHECK(f.entry[2].type > 2);          /* six dimensions: not supported  */
    SAME(f.entry[2].rank, 0);
    smask_shutdown(&c);
    free(file.data);
}

/* As many names as the reader takes, in an order that sorting has to undo, and
   one more. A sort that compares each with each would take minutes. */
static void many_entries(void)
{
    enum { COUNT = 65535 };
    static char text[(COUNT + 1) * 80], name[16];
    smask_ctx c;
    smask_file f;
    int i, more, good = 1;
    float x;

    for (more = 0; more < 2; more++) {
        const int count = COUNT + more;
        size_t at = (size_t)sprintf(text, "{");
        memory file;
        smask_io io;
        for (i = 0; i < count; i++) {
            const int k = (int)((int64_t)i * 1709 % count);
            at += (size_t)sprintf(text + at, "%s\"t%d\":" "{\"dtype\":\"U8\","
                "\"shape\":[1],\"data_offsets\":[%d,%d]}", i > 0 ? "," : "",
                k, k, k + 1);
        }
        sprintf(text + at, "}");
        file = file_of(text, 0);
        io = io_of(&file);
        smask_setup(&c, NULL);
        if (more) {
            SAME(smask_open(&c, &f, &io), SMASK_FORMAT);
            CHECK(strstr(smask_detail(&c), "too many") != NULL);
        } else {
            SAME(smask_open(&c, &f, &io), SMASK_OK);
            SAME(f.count, COUNT);
            for (i = 0; i < f.count && good; i++) {
                sprintf(name, "t%d", i);
                good = f.entry[i].begin == (size_t)i
                    && smask_read_tensor(&c, &f, name, &x, 1) == SMASK_FORMAT
                    && strstr(smask_detail(&c), "size") != NULL;
                smask_clear(&c);
            }
            CHECK(good);
        }
        smask_shutdown(&c);
        free(file.data);
    }
}

/* Random damage to a real file, most of it to the header. Every
   outcome is a result code; tensors that were read equal those written. */
static void random_damage(void)
{
    static model a, b;
    smask_vit_desc d = small_desc(), told;
    smask_random r;
    memory file, copy;
    int i, results[SMASK_RESULT_COUNT];
    size_t header;

    d.depth = 1;
    make(&a, &d, 1, 0);
    make(&b, &d, 2, 0);
    memset(results, 0, sizeof results);
    file = write_model(&a, 1, NULL, 0);
    header = file.data[0] + 256u * file.data[1];
    copy = file;
    copy.data = (unsigned char *)malloc(file.size);
    if (copy.data == NULL) abort();
    smask_seed(&r, 11, 0);
    for (i = 0; i < 4000; i++) {
        const uint32_t hits = 1 + smask_below(&r, i % 5 == 0 ? 8 : 2);
        smask_file f;
        smask_io io = io_of(&copy);
        smask_tokenizer_desc words;
        smask_result result;
        uint32_t k;
        memcpy(copy.data, file.data, file.size);
        for (k = 0; k < hits; k++) {
            const size_t at = smask_below(&r, (uint32_t)(header + 8));
            const uint32_t how = smask_below(&r, 3);
            if (how == 0) copy.data[at] ^= (unsigned char)(1u
                << smask_below(&r, 8));
            if (how == 1) copy.data[at] = (unsigned char)smask_below(&r, 256);
            if (how == 2) copy.data[at] = (unsigned char)
                "{}[]\",:0123456789\\u"[smask_below(&r, 19)];
        }
        copy.at = 0;
        smask_begin_step(&b.c);
        result = smask_open(&b.c, &f, &io);
        if (result == SMASK_OK && i % 4 == 0) {
            smask_read_vit_desc(&b.c, &f, &told);
            smask_clear(&b.c);
            smask_read_tokenizer_desc(&b.c, &f, &words);
            smask_clear(&b.c);
        }
        if (result == SMASK_OK)
            result = smask_read(&b.c, &f, &b.v, &b.t, &b.a, &b.e, NULL);
        smask_end_step(&b.c);
        smask_clear(&b.c);
        results[result]++;
    }
    CHECK(results[SMASK_FORMAT] > 1000);
    CHECK(results[SMASK_OK] > 10);
    CHECK(results[SMASK_NUMERIC] + results[SMASK_NODES]
        + results[SMASK_RANGE] + results[SMASK_SHAPE] == 0);
    free(file.data);
    free(copy.data);
    smask_shutdown(&a.c);
    smask_shutdown(&b.c);
}

/* A header too large for the arena gives MEMORY, at every arena size, and
   nothing is written past the end. */
static void arena_too_small(void)
{
    static unsigned char block[20000];
    memory file = file_of("{\"b\":" T("[1]", "4", "8") ",\"a\":"
        T("[1]", "0", "4") "}", 8);
    size_t bytes;
    int opened = 0;

    for (bytes = 1024; bytes < sizeof block - 64; bytes += 16) {
        smask_desc desc;
        smask_ctx c;
        smask_file f;
        smask_io io = io_of(&file);
        memset(&desc, 0, sizeof desc);
        desc.memory = block;
        desc.memory_size = bytes;
        memset(block + bytes, 0x5a, 64);
        file.at = 0;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        if (smask_open(&c, &f, &io) == SMASK_OK) {
            opened++;
        } else {
            SAME(smask_error(&c), SMASK_MEMORY);
            SAME(opened, 0);
            SAME(f.count, 0);
        }
        SAME(block[bytes], 0x5a);
        smask_shutdown(&c);
    }
    CHECK(opened > 0);
    free(file.data);
}

/* ------------------------------------------------------- files of others */

/* A file with timm's names and shapes, in one of the three types. */
typedef struct timm {
    char header[8192];
    size_t at, data;
    const char *type;
    size_t width;
} timm;

static const char *timm_skip;            /* names that hold it are left out */

static void timm_add(timm *t, const char *name, int d0, int d1, int d2,
    int d3)
{
    const int d[4] = { d0, d1, d2, d3 };
    size_t bytes = t->width;
    int i;

    if (timm_skip != NULL && strstr(name, timm_skip) != NULL) return;
    t->at += (size_t)sprintf(t->header + t->at, "%s\"%s\":{\"dtype\":\"%s\","
        "\"shape\":[", t->at > 1 ? "," : "", name, t->type);
    for (i = 0; i < 4 && d[i] > 0; i++) {
        t->at += (size_t)sprintf(t->header + t->at, "%s%d", i > 0 ? "," : "",
            d[i]);
        bytes *= (size_t)d[i];
    }
    t->at += (size_t)sprintf(t->header + t->at, "],\"data_offsets\":"
        "[%lu,%lu]}", (unsigned long)t->data,
        (unsigned long)(t->data + bytes));
    t->data += bytes;
}

/* A ViT of width D, 2 blocks, patches of 4 pixels, S of them a side. */
static memory timm_file(const char *type, int D, int S, int cls, int classes,
    const char *extra)
{
    static timm t;
    memory file;
    int l;
    size_t i;

    memset(&t, 0, sizeof t);
    t.type = type;
    t.width = strcmp(type, "F32") == 0 ? 4 : 2;
    t.at = (size_t)sprintf(t.header, "{");
    if (cls) timm_add(&t, "cls_token", 1, 1, D, 0);
    timm_add(&t, "pos_embed", 1, S * S + cls, D, 0);
    timm_add(&t, "patch_embed.proj.weight", D, 3, 4, 4);
    timm_add(&t, "patch_embed.proj.bias", D, 0, 0, 0);
    for (l = 0; l < 2; l++) {
        char name[64];
#define BLOCK(part, d0, d1)                                                 \
        sprintf(name, "blocks.%d." part, l);                                \
        timm_add(&t, name, d0, d1, 0, 0);
        BLOCK("norm1.weight", D, 0)
        BLOCK("norm1.bias", D, 0)
        BLOCK("attn.qkv.weight", 3 * D, D)
        BLOCK("attn.qkv.bias", 3 * D, 0)
        BLOCK("attn.proj.weight", D, D)
        BLOCK("attn.proj.bias", D, 0)
        BLOCK("norm2.weight", D, 0)
        BLOCK("norm2.bias", D, 0)
        BLOCK("mlp.fc1.weight", 4 * D, D)
        BLOCK("mlp.fc1.bias", 4 * D, 0)
        BLOCK("mlp.fc2.weight", D, 4 * D)
        BLOCK("mlp.fc2.bias", D, 0)
#undef BLOCK
    }
    if (extra != NULL) timm_add(&t, extra, 1, 1, D, 0);
    timm_add(&t, "norm.weight", D, 0, 0, 0);
    timm_add(&t, "norm.bias", D, 0, 0, 0);
    if (classes > 0) timm_add(&t, "head.weight", classes, D, 0, 0);
    if (classes > 0) timm_add(&t, "head.bias", classes, 0, 0, 0);
    sprintf(t.header + t.at, "}");
    file = file_of(t.header, t.data);
    /* Numbers that are the same in all three types: 1 + i / 64. */
    for (i = 0; i < t.data / t.width; i++) {
        const float x = 1 + (float)(i % 64) / 64;
        unsigned char *b = file.data + file.size - t.data + i * t.width;
        uint32_t bits;
        memcpy(&bits, &x, 4);
        if (type[0] == 'F' && type[1] == '1') bits = 0x3c00 | (uint32_t)(i
            % 64 << 4);
        else if (type[0] == 'B') bits >>= 16;
        b[0] = (unsigned char)(bits & 0xff);
        b[1] = (unsigned char)(bits >> 8 & 0xff);
        if (t.width == 4) b[2] = (unsigned char)(bits >> 16 & 0xff);
        if (t.width == 4) b[3] = (unsigned char)(bits >> 24);
    }
    return file;
}

static void timm_files(void)
{
    static const char *types[3] = { "F32", "F16", "BF16" };
    int type, cls;

    for (type = 0; type < 3; type++)
        for (cls = 0; cls <= 1; cls++) {
            memory file = timm_file(types[type], 128, 3, cls, 10,
                "some.other.tensor");
            smask_io io = io_of(&file);
            smask_vit_desc d;
            smask_vit v;
            smask_ctx c;
            smask_file f;
            int32_t missing = -1;
            size_t i, wrong = 0, at = 0;
            int32_t k;
            smask_setup(&c, NULL);
            SAME(smask_open(&c, &f, &io), SMASK_OK);
            SAME(smask_read_vit_desc(&c, &f, &d), SMASK_OK);
            SAME(d.image, 12);
            SAME(d.patch, 4);
            SAME(d.channels, 3);
            SAME(d.dim, 128);
            SAME(d.depth, 2);
            SAME(d.heads, 2);            /* of width 64                     */
            SAME(d.mlp_ratio, 4);
            SAME(d.class_token, cls);
            SAME(d.pool_class, cls);
            SAME(d.classes, 10);
            SAME(d.vocabulary, 0);
            SAME(d.decoder_depth, 0);
            SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
            SAME(v.desc.heads, 2);
            v.blocks[0].up_w->arg[1] = SMASK__PANELS_READY;
            SAME(smask_read(&c, &f, &v, NULL, NULL, NULL, &missing),
                SMASK_OK);
            SAME(v.blocks[0].up_w->arg[1], SMASK__PANELS_OLD);
            SAME(missing, 0);
            SAME(file.at, file.size);
            for (k = 0; k < f.count; k++) {
                const smask_param *p;
                char name[64];
                const size_t n = f.entry[k].name_bytes;
                memcpy(name, f.entry[k].name, n);
                name[n] = '\0';
                p = smask_params_find(&v.params, name);
                at = f.entry[k].begin / (type == 0 ? 4 : 2);
                if (p == NULL) {
                    CHECK_TEXT(name, "some.other.tensor");
                    continue;
                }
                for (i = 0; i < smask_count(p->t); i++)
                    wrong += p->t->x[i] != 1 + (float)((at + i) % 64) / 64;
            }
            SAME(wrong, 0);
            smask_shutdown(&c);
            free(file.data);
        }
}

/* A tensor of the encoder that is not computed here, or one that lacks, is an
   error that names it. What lies outside of the encoder is skipped. */
static void timm_relatives(void)
{
    static const char *extra[] = { "dist_token", "reg_token", "norm_pre.bias",
        "blocks.0.attn.q_norm.weight", "blocks.1.attn.norm.weight",
        "blocks.1.mlp.norm.bias", "blocks.0.norm3.weight", "fc_norm.weight",
        "patch_embed.norm.weight", "pos_embed_win", "cls_head.bias",
        "rel_pos_bias.table", "pre_logits.fc.weight", "attn_pool.latent",
        "blocks.1.ls1.gamma", "blocks.1.gamma_1", "blocks.3.norm1.weight",
        "blocks.01.norm1.weight", "blocks.x", "norm\\u002ex" };
    static const char *without[] = { "blocks.0.norm1.weight",
        "blocks.1.mlp.fc2.bias", "norm.bias", "pos_embed", "blocks.0.",
        "blocks.1.attn.qkv.bias" };
    smask_vit_desc d;
    smask_ctx c;
    smask_file f;
    size_t i;

    for (i = 0; i < sizeof extra / sizeof *extra
        + sizeof without / sizeof *without; i++) {
        const size_t k = i - sizeof extra / sizeof *extra;
        const int more = i < sizeof extra / sizeof *extra;
        memory file;
        smask_io io;
        timm_skip = more ? NULL : without[k];
        file = timm_file("F32", 64, 2, 1, 0, more ? extra[i] : NULL);
        io = io_of(&file);
        smask_setup(&c, NULL);
        SAME(smask_open(&c, &f, &io), SMASK_OK);
        SAME(smask_read_vit_desc(&c, &f, &d), SMASK_FORMAT);
        if (!CHECK(strstr(smask_detail(&c), more && i != 16 ? extra[i]
            : i == 16 ? "blocks.2.norm1.weight: is missing"
            : without[k]) != NULL)) printf("    %s\n", smask_detail(&c));
        smask_shutdown(&c);
        free(file.data);
    }
    timm_skip = "attn.qkv.bias";         /* no block has it: it is zero    */
    for (i = 0; i < 2; i++) {
        memory file = timm_file("F32", 64, 2, 1, 0, i ? "head_2.x" : NULL);
        smask_io io = io_of(&file);
        smask_vit v;
        int32_t missing;
        smask_setup(&c, NULL);
        SAME(smask_open(&c, &f, &io), SMASK_OK);
        SAME(smask_read_vit_desc(&c, &f, &d), SMASK_OK);
        SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
        SAME(smask_read(&c, &f, &v, NULL, NULL, NULL, &missing), SMASK_OK);
        SAME(missing, 2);
        smask_shutdown(&c);
        free(file.data);
    }
    timm_skip = NULL;
    {
        memory file = file_of("{\"a\":" T("[1]", "0", "4") "}", 4);
        smask_io io = io_of(&file);
        smask_setup(&c, NULL);
        SAME(smask_open(&c, &f, &io), SMASK_OK);
        SAME(smask_read_vit_desc(&c, &f, &d), SMASK_FORMAT);
        smask_clear(&c);
        {
            smask_tokenizer_desc w;
            SAME(smask_read_tokenizer_desc(&c, &f, &w), SMASK_FORMAT);
        }
        smask_shutdown(&c);
        free(file.data);
    }
}

/* Metadata that is not a number, or a dangerous one. */
static void wild_architectures(void)
{
    static const struct { const char *pair; smask_result result; } pairs[] = {
        { "\"embed_dim\":\"64\"", SMASK_OK },
        { "\"embed_dim\":\"65537\"", SMASK_FORMAT },
        { "\"embed_dim\":\"-64\"", SMASK_FORMAT },
        { "\"embed_dim\":\"64.0\"", SMASK_FORMAT },
        { "\"embed_dim\":\"\"", SMASK_FORMAT },
        { "\"embed_dim\":\" 64\"", SMASK_FORMAT },
        { "\"embed_dim\":\"99999999999999999999999999999999999999\"",
            SMASK_FORMAT },
        { "\"depth\":\"2000000000\"", SMASK_FORMAT },
        { "\"img_size\":\"2147483647\"", SMASK_FORMAT },
        { "\"vocab_size\":\"4294967295\"", SMASK_FORMAT },
        { "\"class_token\":\"2\"", SMASK_FORMAT },
        { "\"init_values_bits\":\"925353388\"", SMASK_OK },    /* 1e-5 */
        { "\"init_values_bits\":\"2139095039\"", SMASK_OK },   /* most */
        { "\"init_values_bits\":\"2139095040\"", SMASK_FORMAT },
        { "\"init_values_bits\":\"2147483648\"", SMASK_FORMAT },
        { "\"init_values_bits\":\"1e-5\"", SMASK_FORMAT },
        { "\"init_values_bits\":\"nan\"", SMASK_FORMAT },
        { "\"drop_path_bits\":\"1065353215\"", SMASK_OK },     /* below 1 */
        { "\"drop_path_bits\":\"1065353216\"", SMASK_FORMAT },
        { "\"splitmask\":\"2\"", SMASK_OK }      /* the first one counts   */
    };
    size_t i;

    for (i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[200];
        memory file;
        smask_io io;
        smask_vit_desc d;
        smask_ctx c;
        smask_file f;
        sprintf(text, "{\"__metadata__\":{\"splitmask\":\"1\",%s}}",
            pairs[i].pair);
        file = file_of(text, 0);
        io = io_of(&file);
        smask_setup(&c, NULL);
        SAME(smask_open(&c, &f, &io), SMASK_OK);
        if (!SAME(smask_read_vit_desc(&c, &f, &d), pairs[i].result))
            printf("    %s\n", text);
        smask_shutdown(&c);
        free(file.data);
    }
    {
        memory file = file_of("{\"__metadata__\":{\"splitmask\":\"2\"}}", 0);
        smask_io io = io_of(&file);
        smask_vit_desc d;
        smask_ctx c;
        smask_file f;
        smask_setup(&c, NULL);
        smask_open(&c, &f, &io);
        SAME(smask_read_vit_desc(&c, &f, &d), SMASK_FORMAT);
        CHECK(strstr(smask_detail(&c), "later version") != NULL);
        smask_shutdown(&c);
        free(file.data);
    }
}

/* All 65,536 values of each 16-bit type. */
static void half_types(void)
{
    static float x[65536];
    int type;

    for (type = 0; type < 2; type++) {
        memory file = file_of(type == 0
            ? "{\"a\":{\"dtype\":\"F16\",\"shape\":[65536],\"data_offsets\":"
              "[0,131072]}}"
            : "{\"a\":{\"dtype\":\"BF16\",\"shape\":[65536],\"data_offsets\":"
              "[0,131072]}}", 131072);
        smask_io io = io_of(&file);
        smask_ctx c;
        smask_file f;
        uint32_t i, wrong = 0;
        for (i = 0; i < 65536; i++) {
            unsigned char *b = file.data + file.size - 131072 + 2 * i;
            b[0] = (unsigned char)(i & 0xff);
            b[1] = (unsigned char)(i >> 8);
        }
        smask_setup(&c, NULL);
        SAME(smask_open(&c, &f, &io), SMASK_OK);
        SAME(smask_read_tensor(&c, &f, "a", x, 65536), SMASK_OK);
        for (i = 0; i < 65536; i++) {
            const int exponent = (int)(i >> 10 & 31);
            const double part = (double)(i & 0x3ff);
            uint32_t bits, expected = i << 16;
            memcpy(&bits, x + i, 4);
            if (type == 0 && exponent == 31) {
                expected = (i & 0x8000) << 16 | 0x7f800000
                    | (i & 0x3ff) << 13;
            } else if (type == 0) {
                const float value = (float)(exponent == 0
                    ? ldexp(part, -24) : ldexp(1024 + part, exponent - 25));
                memcpy(&expected, &value, 4);
                expected |= (i & 0x8000) << 16;
            }
            wrong += bits != expected;
        }
        SAME(wrong, 0);
        smask_shutdown(&c);
        free(file.data);
    }
}

/* --------------------------------------------------- reading, the rules */

static void what_does_not_match(void)
{
    static model a, b;
    smask_vit_desc d = small_desc();
    int32_t missing;
    memory file, more;

    make(&a, &d, 1, 0);
    file = write_model(&a, 0, NULL, 0);
    /* Tensors only in the file, and tensors only in the model. */
    d.vocabulary = d.decoder_depth = 0;
    d.classes = 5;
    make(&b, &d, 2, 0);
    SAME(read_model(&b, &file, 0, &missing), SMASK_OK);
    SAME(missing, 2);
    SAME(file.at, file.size);
    CHECK(same_floats(a.v.blocks[1].up_w->x, b.v.blocks[1].up_w->x,
        16 * 32));
    /* A classifier of another size belongs to another task. */
    more = write_model(&b, 0, NULL, 0);
    smask_shutdown(&a.c);
    d.classes = 3;
    make(&a, &d, 3, 0);
    SAME(read_model(&a, &more, 0, &missing), SMASK_OK);
    SAME(missing, 2);
    free(more.data);
    smask_shutdown(&b.c);
    /* Other shapes are an error, found before anything is changed. */
    d = small_desc();
    d.image = 16;
    make(&b, &d, 2, 0);
    d = small_desc();
    smask_shutdown(&a.c);
    make(&a, &d, 2, 0);
    memcpy(a.v.patch_b->x, b.v.patch_b->x, 16 * 4);
    SAME(read_model(&b, &file, 0, &missing), SMASK_FORMAT);
    CHECK_TEXT(smask_detail(&b.c),
        "pos_embed: its shape in the file differs from the model's");
    CHECK(same_floats(a.v.patch_b->x, b.v.patch_b->x, 16));
    smask_clear(&b.c);
    /* No training state, no codebook, no means. */
    SAME(read_model(&a, &file, 1, &missing), SMASK_STATE);
    smask_clear(&a.c);
    {
        smask_file f;
        smask_io io = io_of(&file);
        file.at = 0;
        smask_open(&a.c, &f, &io);
        SAME(smask_read(&a.c, &f, &a.v, &a.t, NULL, NULL, NULL),
            SMASK_STATE);
        smask_clear(&a.c);
        SAME(smask_read(&a.c, &f, &a.v, NULL, NULL, &a.e, NULL),
            SMASK_STATE);
        smask_clear(&a.c);
        /* Nothing has been read yet, so it can be read, once. */
        SAME(smask_read(&a.c, &f, &a.v, NULL, NULL, NULL, NULL), SMASK_OK);
        SAME(smask_read(&a.c, &f, &a.v, NULL, NULL, NULL, NULL),
            SMASK_STATE);
    }
    free(file.data);
    smask_shutdown(&a.c);
    smask_shutdown(&b.c);
}

static void a_type_that_is_not_read(void)
{
    static model a;
    const smask_vit_desc d = small_desc();
    memory file = file_of("{\"norm.bias\":{\"dtype\":\"I64\",\"shape\":[16],"
        "\"data_offsets\":[0,128]},\"x\":{\"dtype\":\"I64\",\"shape\":[1],"
        "\"data_offsets\":[128,136]}}", 136);
    int32_t missing;

    make(&a, &d, 1, 0);
    SAME(read_model(&a, &file, 0, &missing), SMASK_FORMAT);
    CHECK_TEXT(smask_detail(&a.c),
        "norm.bias: is not F32, F16, BF16 or F64");
    free(file.data);
    smask_shutdown(&a.c);
}

/* F64 is rounded to float. */
static void float64(void)
{
    static model a;
    const smask_vit_desc d = small_desc();
    memory file = file_of("{\"norm.bias\":{\"dtype\":\"F64\",\"shape\":[16],"
        "\"data_offsets\":[0,128]}}", 128);
    int32_t i, k, missing;

    for (i = 0; i < 16; i++) {
        const double x = 0.1 * (i - 7) * (i == 3 ? 1e-60 : 1);
        uint64_t bits;
        memcpy(&bits, &x, 8);
        for (k = 0; k < 8; k++)
            file.data[file.size - 128 + (size_t)(8 * i + k)]
                = (unsigned char)(bits >> (8 * k) & 0xff);
    }
    make(&a, &d, 1, 0);
    SAME(read_model(&a, &file, 0, &missing), SMASK_OK);
    for (i = 0; i < 16; i++)
        CHECK(a.v.norm_b->x[i] == (float)(0.1 * (i - 7)
            * (i == 3 ? 1e-60 : 1)));
    free(file.data);
    smask_shutdown(&a.c);
}

/* A name spelt with escapes is the name that they mean. Bytes after the last
   tensor are an error. */
static void odd_names(void)
{
    static model a;
    const smask_vit_desc d = small_desc();
    memory file = file_of("{\"norm\\u002ebias\":" T("[16]", "0", "64") "}",
        64);
    memory more = file_of("{\"norm.bias\":" T("[16]", "0", "64") "}", 65);
    int32_t missing;

    make(&a, &d, 1, 0);
    SAME(read_model(&a, &file, 0, &missing), SMASK_OK);
    SAME(missing, a.v.params.count - 1);
    SAME(read_model(&a, &more, 0, &missing), SMASK_FORMAT);
    CHECK(strstr(smask_detail(&a.c), "bytes follow") != NULL);
    free(file.data);
    free(more.data);
    smask_shutdown(&a.c);
}

static void one_tensor_at_a_time(void)
{
    memory file = file_of("{\"a\":" T("[2]", "0", "8") ",\"b\":"
        T("[3]", "8", "20") ",\"c\":" T("[200]", "20", "820") ",\"d\":"
        T("[1]", "820", "824") "}", 824);
    smask_io io = io_of(&file);
    float x[3] = { 7, 7, 7 };
    smask_ctx c;
    smask_file f;

    file.data[file.size - 2] = 0x80;     /* d = 1.0f                       */
    file.data[file.size - 1] = 0x3f;
    smask_setup(&c, NULL);
    SAME(smask_open(&c, &f, &io), SMASK_OK);
    SAME(smask_read_tensor(&c, &f, "b", x, 2), SMASK_FORMAT);
    smask_clear(&c);
    SAME(smask_read_tensor(&c, &f, "e", x, 3), SMASK_FORMAT);
    CHECK_TEXT(smask_detail(&c), "e: is not in the file");
    smask_clear(&c);
    SAME(smask_read_tensor(&c, &f, "b", x, 3), SMASK_OK);
    NEAR(x[0] + x[1] + x[2], 0, 0);
    SAME(smask_read_tensor(&c, &f, "a", x, 2), SMASK_STATE);
    smask_clear(&c);
    SAME(smask_read_tensor(&c, &f, "d", x, 1), SMASK_OK);
    NEAR(x[0], 1, 0);
    SAME(file.at, file.size);
    smask_shutdown(&c);
    free(file.data);
}

/* ------------------------------------------------- a part of the weights */

/* All weights of a model, one after the other. */
static size_t copy_weights(const model *m, float *out)
{
    size_t n = 0;
    int32_t i;

    for (i = 0; i < m->v.params.count; i++) {
        const smask_tensor *t = m->v.params.item[i].t;
        memcpy(out + n, t->x, smask_count(t) * sizeof *out);
        n += smask_count(t);
    }
    return n;
}

/* Are the weights that `prefix` or `except` picks those of a, and all others
   those that b had before? The classifiers may differ in size. */
static int picked(const model *a, const model *b, const float *before,
    const char *prefix, int except)
{
    int32_t i, j;
    int good = 1;

    for (i = 0; i < b->v.params.count; i++) {
        const smask_param *p = &b->v.params.item[i];
        const size_t n = smask_count(p->t);
        const float *right = before;
        if ((strncmp(p->name, prefix, strlen(prefix)) == 0) != except) {
            right = NULL;
            for (j = 0; j < a->v.params.count; j++)
                if (strcmp(a->v.params.item[j].name, p->name) == 0)
                    right = a->v.params.item[j].t->x;
        }
        if (right == NULL || !same_floats(p->t->x, right, n)) {
            printf("    %s\n", p->name);
            good = 0;
        }
        before += n;
    }
    return good;
}

static smask_result read_part(model *m, memory *file, const char *prefix,
    int except, int32_t *missing)
{
    smask_file f;
    smask_io io = io_of(file);
    smask_result result;

    file->at = 0;
    smask_begin_step(&m->c);
    result = smask_open(&m->c, &f, &io);
    if (result == SMASK_OK)
        result = smask_read_prefix(&m->c, &f, &m->v, prefix, except, missing);
    smask_end_step(&m->c);
    return result;
}

/* What is read is what the prefix says, and nothing else changes: no weight,
   no moment, no mean, no generator. The file is read to its end. */
static void parts_of_a_model(void)
{
    static const char *prefix[] = { "blocks.", "blocks.1.", "norm.weight",
        "head.", "", "none." };
    static model a, b;
    static float before[20000];
    smask_vit_desc d = small_desc();
    memory file;
    int i, except;

    d.classes = 5;
    make(&a, &d, 1, 0);
    train(&a, 2, 0);
    file = write_model(&a, 1, NULL, 0);
    for (i = 0; i < 6; i++)
        for (except = 0; except < 2; except++) {
            int32_t missing = -1;
            smask_random random;
            make(&b, &d, 2, 0);
            train(&b, 1, 0);
            random = b.c.random;
            CHECK(copy_weights(&b, before) < 20000);
            SAME(read_part(&b, &file, prefix[i], 7 * except, &missing),
                SMASK_OK);
            SAME(missing, 0);
            SAME(file.at, file.size);
            if (!CHECK(picked(&a, &b, before, prefix[i], except)))
                printf("    \"%s\", except %d\n", prefix[i], except);
            SAME(b.a.step, 1);
            CHECK(random.state == b.c.random.state);
            CHECK(!same_floats(b.a.m[0], a.a.m[0], 256));
            CHECK(!same_floats(b.e.mean[0], a.e.mean[0], 256));
            smask_shutdown(&b.c);
        }
    free(file.data);
    smask_shutdown(&a.c);
}

static void parts_that_differ(void)
{
    static model a, b;
    static float before[20000];
    smask_vit_desc d = small_desc();
    int32_t missing = -1, all;
    memory file;

    /* Another number of classes: read all but the classifier. */
    d.classes = 5;
    d.vocabulary = d.decoder_depth = 0;
    make(&a, &d, 1, 0);
    file = write_model(&a, 0, NULL, 0);
    d.classes = 3;
    make(&b, &d, 2, 0);
    copy_weights(&b, before);
    SAME(read_part(&b, &file, "head.", 1, &missing), SMASK_OK);
    SAME(missing, 0);
    CHECK(picked(&a, &b, before, "head.", 1));
    smask_shutdown(&b.c);

    /* What the file lacks counts if it was asked for, and keeps its values. */
    d.vocabulary = 12;
    d.decoder_depth = 1;
    make(&b, &d, 2, 0);
    copy_weights(&b, before);
    SAME(read_model(&b, &file, 0, &all), SMASK_OK);
    CHECK(all > 2);
    smask_shutdown(&b.c);
    make(&b, &d, 2, 0);
    SAME(read_part(&b, &file, "decoder.", 0, &missing), SMASK_OK);
    SAME(missing, all - 2);              /* all but the classifier's two   */
    CHECK(picked(&a, &b, before, "none.", 0));
    SAME(read_part(&b, &file, "decoder.", 1, &missing), SMASK_OK);
    SAME(missing, 2);
    SAME(read_part(&b, &file, "blocks.", 0, NULL), SMASK_OK);
    smask_shutdown(&b.c);

    /* A shape that differs is an error where it is asked for. */
    d = small_desc();
    d.vocabulary = d.decoder_depth = 0;
    d.classes = 5;
    d.image = 16;
    make(&b, &d, 2, 0);
    copy_weights(&b, before);
    SAME(read_part(&b, &file, "pos_", 0, &missing), SMASK_FORMAT);
    CHECK_TEXT(smask_detail(&b.c),
        "pos_embed: its shape in the file differs from the model's");
    smask_clear(&b.c);
    SAME(read_part(&b, &file, "head.", 1, &missing), SMASK_FORMAT);
    smask_clear(&b.c);
    CHECK(picked(&a, &b, before, "none.", 0));
    SAME(read_part(&b, &file, "pos_", 1, &missing), SMASK_OK);
    SAME(missing, 0);
    CHECK(picked(&a, &b, before, "pos_", 1));
    smask_shutdown(&a.c);
    smask_shutdown(&b.c);
    free(file.data);

    /* So is a type that cannot be read. */
    file = file_of("{\"norm.bias\":{\"dtype\":\"I64\",\"shape\":[16],"
        "\"data_offsets\":[0,128]}}", 128);
    d = small_desc();
    make(&b, &d, 2, 0);
    SAME(read_part(&b, &file, "norm.", 0, &missing), SMASK_FORMAT);
    smask_clear(&b.c);
    SAME(read_part(&b, &file, "blocks.", 0, &missing), SMASK_OK);
    CHECK(missing > 0);
    smask_shutdown(&b.c);
    free(file.data);
}

/* ------------------------------------------------- tensors in portions */

#define PARTS 4

static const smask_shape part_shape[PARTS] = { { "one", 1, { 1, 0, 0, 0 } },
    { "a.b", 4, { 2, 3, 5, 7 } }, { "c", 2, { 100, 11, 0, 0 } },
    { "d", 3, { 3, 1, 2, 0 } } };
enum { PART_FLOATS = 1 + 210 + 1100 + 6 };

/* The four tensors in portions of n floats; n 0: of changing sizes, an empty
   one among them. */
static memory in_portions(smask_ctx *c, const float *x, size_t n,
    const smask_metadata *metadata, int32_t count)
{
    memory file;
    smask_io io;
    smask_writer w;
    size_t at, more;

    memset(&file, 0, sizeof file);
    io = io_of(&file);
    SAME(smask_write_begin(c, &w, &io, part_shape, PARTS, metadata, count),
        SMASK_OK);
    memset(&io, 0, sizeof io);           /* the writer has its own copy    */
    for (at = 0; at < PART_FLOATS; at += more) {
        more = n > 0 ? n : at * at % 300;
        if (n == 0 && at == 0) {
            SAME(smask_write_floats(c, &w, x, 0), SMASK_OK);
            more = 3;
        }
        if (more == 0) more = 1;
        if (more > PART_FLOATS - at) more = PART_FLOATS - at;
        SAME(smask_write_floats(c, &w, x + at, more), SMASK_OK);
    }
    SAME(smask_write_end(c, &w), SMASK_OK);
    return file;
}

static void portions(void)
{
    static const size_t size[] = { 1, 2, 255, 256, 257, 1000, 0 };
    static float x[PART_FLOATS], y[PART_FLOATS];
    smask_metadata metadata[2] = { { "unit", "metres" }, { "a\"b", "" } };
    char out[16];
    memory whole;
    smask_file f;
    smask_io io;
    smask_ctx c;
    size_t i;

    smask_setup(&c, NULL);
    for (i = 0; i < PART_FLOATS; i++) x[i] = smask_normal(&c.random);
    whole = in_portions(&c, x, PART_FLOATS, NULL, 0);
    for (i = 0; i < sizeof size / sizeof *size; i++) {
        memory file = in_portions(&c, x, size[i], NULL, 0);
        SAME(file.size, whole.size);
        CHECK(memcmp(file.data, whole.data, whole.size) == 0);
        free(file.data);
    }
    free(whole.data);

    whole = in_portions(&c, x, 0, metadata, 2);      /* and what it says   */
    io = io_of(&whole);
    SAME(smask_open(&c, &f, &io), SMASK_OK);
    SAME(f.count, PARTS);
    SAME(smask_read_metadata(&f, "unit", out, sizeof out), 6);
    CHECK_TEXT(out, "metres");
    SAME(smask_read_metadata(&f, "a\"b", out, sizeof out), 0);
    SAME(smask_read_metadata(&f, "format", out, sizeof out), 2);
    SAME(smask_read_tensor(&c, &f, "one", y, 1), SMASK_OK);
    SAME(smask_read_tensor(&c, &f, "a.b", y + 1, 210), SMASK_OK);
    SAME(smask_read_tensor(&c, &f, "c", y + 211, 1100), SMASK_OK);
    SAME(smask_read_tensor(&c, &f, "d", y + 1311, 6), SMASK_OK);
    CHECK(same_floats(x, y, PART_FLOATS));
    for (i = 0; i < PARTS; i++) {
        SAME(f.entry[i].rank, part_shape[i].rank);
        CHECK(memcmp(f.entry[i].shape, part_shape[i].shape,
            (size_t)part_shape[i].rank * sizeof(int32_t)) == 0);
    }
    free(whole.data);
    smask_shutdown(&c);
}

/* A model's weights, streamed: smask_read takes them as those of smask_write,
   and the floats are the same bytes. */
static void a_streamed_model(void)
{
    static model a, b;
    static smask_shape shapes[128];
    const smask_vit_desc d = small_desc();
    memory whole, file;
    smask_io io;
    smask_writer w;
    int32_t i, missing = -1;
    size_t bytes;

    make(&a, &d, 1, 0);
    make(&b, &d, 2, 0);
    whole = write_model(&a, 0, NULL, 0);
    memset(&file, 0, sizeof file);
    io = io_of(&file);
    CHECK(a.v.params.count <= 128);
    for (i = 0; i < a.v.params.count; i++) {
        const smask_param *p = &a.v.params.item[i];
        shapes[i].name = p->name;
        shapes[i].rank = p->rank;
        memcpy(shapes[i].shape, p->shape, sizeof p->shape);
    }
    smask_write_begin(&a.c, &w, &io, shapes, a.v.params.count, NULL, 0);
    for (i = 0; i < a.v.params.count; i++)
        smask_write_floats(&a.c, &w, a.v.params.item[i].t->x,
            smask_count(a.v.params.item[i].t));
    SAME(smask_write_end(&a.c, &w), SMASK_OK);
    bytes = 4 * smask_params_count(&a.v.params);
    CHECK(file.size > bytes && whole.size > file.size);
    CHECK(memcmp(file.data + file.size - bytes,
        whole.data + whole.size - bytes, bytes) == 0);
    SAME(read_model(&b, &file, 0, &missing), SMASK_OK);
    SAME(missing, 0);
    CHECK(same_model(&a, &b, 0));
    free(whole.data);
    free(file.data);
    smask_shutdown(&a.c);
    smask_shutdown(&b.c);
}

static smask_result plan_portions(smask_ctx *c, void *user)
{
    smask_io io = io_of((memory *)user);
    smask_writer w;

    SAME(smask_write_begin(c, &w, &io, part_shape, PARTS, NULL, 0), SMASK_OK);
    SAME(smask_write_floats(c, &w, NULL, PART_FLOATS), SMASK_OK);
    return smask_write_end(c, &w);
}

static void portions_that_do_not_fit(void)
{
    static const float x[PART_FLOATS + 1] = { 0 };
    const smask_metadata no_value = { "key", NULL };
    smask_sizes sizes;
    smask_writer w;
    smask_ctx c;
    memory file;
    smask_io io;
    size_t size;

    memset(&file, 0, sizeof file);
    io = io_of(&file);
    smask_setup(&c, NULL);
    /* Too many: refused before the first byte of the portion. */
    smask_write_begin(&c, &w, &io, part_shape, PARTS, NULL, 0);
    SAME(smask_write_floats(&c, &w, x, PART_FLOATS - 1), SMASK_OK);
    size = file.size;
    SAME(smask_write_floats(&c, &w, x, 2), SMASK_STATE);
    SAME(file.size, size);
    SAME(smask_write_floats(&c, &w, x, 1), SMASK_STATE);     /* it sticks  */
    SAME(smask_write_end(&c, &w), SMASK_STATE);
    SAME(file.size, size);
    smask_clear(&c);
    /* Too few: known at the end. */
    SAME(smask_write_end(&c, &w), SMASK_STATE);
    smask_clear(&c);
    SAME(smask_write_floats(&c, &w, x, 1), SMASK_OK);
    SAME(smask_write_end(&c, &w), SMASK_OK);
    /* The disk is full in the header, in the floats. */
    file.limit = file.size + 40;
    SAME(smask_write_begin(&c, &w, &io, part_shape, PARTS, NULL, 0), SMASK_IO);
    SAME(file.size, file.limit);
    smask_clear(&c);
    file.limit = 0;
    smask_write_begin(&c, &w, &io, part_shape, PARTS, NULL, 0);
    file.limit = file.size + 4000;
    SAME(smask_write_floats(&c, &w, x, 1000), SMASK_OK);
    SAME(smask_write_floats(&c, &w, x, 1), SMASK_IO);
    smask_clear(&c);
    file.limit = 0;
    SAME(smask_write_begin(&c, &w, &io, part_shape, PARTS, &no_value, 1),
        SMASK_ARG);
    smask_clear(&c);
    SAME(smask_write_begin(&c, &w, NULL, part_shape, PARTS, NULL, 0),
        SMASK_ARG);
    smask_shutdown(&c);
    /* In a dry run nothing is written, and nothing is missing at the end. */
    size = file.size;
    SAME(smask_plan(NULL, plan_portions, &file, &sizes), SMASK_OK);
    SAME(file.size, size);
    free(file.data);
}

/* ----------------------------------------------------------------- stdio */

static void streams(void)
{
    static model a, b;
    const smask_vit_desc d = small_desc();
    FILE *stream = tmpfile();
    smask_io io = smask_stdio(stream);
    memory file;
    smask_file f;
    int32_t missing = -1;
    size_t cut;
    int byte, bad = 0;

    if (!CHECK(stream != NULL)) return;
    make(&a, &d, 1, 0);
    make(&b, &d, 2, 0);
    train(&a, 2, 0);
    file = write_model(&a, 1, NULL, 0);
    SAME(smask_write(&a.c, &io, &a.v, &a.t, &a.a, &a.e, NULL, 0), SMASK_OK);
    rewind(stream);
    for (cut = 0; cut < file.size; cut++) bad += fgetc(stream)
        != file.data[cut];
    SAME(bad, 0);
    byte = fgetc(stream);
    SAME(byte, EOF);
    rewind(stream);
    smask_begin_step(&b.c);
    SAME(smask_open(&b.c, &f, &io), SMASK_OK);
    SAME(smask_read(&b.c, &f, &b.v, &b.t, &b.a, &b.e, &missing), SMASK_OK);
    SAME(missing, 0);
    CHECK(same_model(&a, &b, 1));
    smask_end_step(&b.c);
    fclose(stream);

    /* The stream ends in the floats, in the header, at once. */
    for (cut = file.size - 1;; cut /= 200) {
        stream = tmpfile();
        if (!CHECK(stream != NULL)) break;
        SAME(fwrite(file.data, 1, cut, stream), cut);
        rewind(stream);
        io = smask_stdio(stream);
        smask_begin_step(&b.c);
        if (smask_open(&b.c, &f, &io) == SMASK_OK)
            smask_read(&b.c, &f, &b.v, NULL, NULL, NULL, NULL);
        SAME(smask_error(&b.c), SMASK_IO);
        smask_end_step(&b.c);
        smask_clear(&b.c);
        fclose(stream);
        if (cut == 0) break;
    }
    free(file.data);
    smask_shutdown(&a.c);
    smask_shutdown(&b.c);
}

/* A device that takes nothing. Without a buffer the first write fails; with
   one a small file seems written until fclose, as the comment says. */
static void a_full_device(void)
{
    const smask_shape one = { "x", 1, { 1, 0, 0, 0 } };
    const float x = 1;
    int buffered;

    for (buffered = 0; buffered < 2; buffered++) {
        FILE *full = fopen("/dev/full", "wb");
        smask_io io = smask_stdio(full);
        smask_writer w;
        smask_ctx c;
        if (full == NULL) {
            printf("skip a_full_device: no /dev/full\n");
            return;
        }
        if (!buffered) setvbuf(full, NULL, _IONBF, 0);
        smask_setup(&c, NULL);
        smask_write_begin(&c, &w, &io, &one, 1, NULL, 0);
        smask_write_floats(&c, &w, &x, 1);
        SAME(smask_write_end(&c, &w), buffered ? SMASK_OK : SMASK_IO);
        CHECK((fclose(full) != 0) == buffered);
        smask_shutdown(&c);
    }
}

/* ---------------------------------------------------------- other rules */

/* A disk that is full after any number of bytes. */
static void a_writer_that_stops(void)
{
    static model a;
    smask_vit_desc d = small_desc();
    memory whole;
    size_t n;

    d.decoder_depth = 0;
    make(&a, &d, 1, 0);
    whole = write_model(&a, 1, NULL, 0);
    for (n = 1; n < whole.size; n += 1 + n / 50) {
        memory file;
        smask_io io;
        memset(&file, 0, sizeof file);
        file.limit = n;
        io = io_of(&file);
        SAME(smask_write(&a.c, &io, &a.v, &a.t, &a.a, &a.e, NULL, 0),
            SMASK_IO);
        SAME(file.size, n);
        CHECK(memcmp(file.data, whole.data, n) == 0);
        smask_clear(&a.c);
        free(file.data);
    }
    free(whole.data);
    smask_shutdown(&a.c);
}

typedef struct planned { memory *file; smask_file *f; int opens; } planned;

static smask_result plan_work(smask_ctx *c, void *user)
{
    planned *p = (planned *)user;
    const smask_vit_desc d = small_desc();
    smask_io io = io_of(p->file);
    smask_file f;
    smask_vit v;

    smask_vit_init(c, &v, &d);
    if (p->opens) return smask_open(c, &f, &io);
    smask_read(c, p->f, &v, NULL, NULL, NULL, NULL);
    smask_write(c, &io, &v, NULL, NULL, NULL, NULL, 0);
    return smask_error(c);
}

/* A dry run touches no file. */
static void dry_runs(void)
{
    static model a;
    const smask_vit_desc d = small_desc();
    smask_sizes sizes;
    smask_file f;
    smask_io io;
    memory file;
    planned p;
    size_t size, at;

    make(&a, &d, 1, 0);
    file = write_model(&a, 0, NULL, 0);
    io = io_of(&file);
    SAME(smask_open(&a.c, &f, &io), SMASK_OK);
    size = file.size;
    at = file.at;
    p.file = &file;
    p.f = &f;
    p.opens = 0;
    SAME(smask_plan(NULL, plan_work, &p, &sizes), SMASK_OK);
    p.opens = 1;
    SAME(smask_plan(NULL, plan_work, &p, &sizes), SMASK_STATE);
    SAME(file.size, size);
    SAME(file.at, at);
    free(file.data);
    smask_shutdown(&a.c);
}

/* Weights in constant memory are not written to. */
static void constant_weights(void)
{
    static model a;
    static float weights[20000];
    smask_vit_desc d = small_desc();
    memory file;

    make(&a, &d, 1, 0);
    file = write_model(&a, 0, NULL, 0);
    CHECK(smask_params_count(&a.v.params) < 20000);
    smask_shutdown(&a.c);
    d.weights = weights;
    make(&a, &d, 1, 0);
    SAME(read_model(&a, &file, 0, NULL), SMASK_ARG);
    free(file.data);
    smask_shutdown(&a.c);
}

int main(void)
{
    RUN(round_trip);
    RUN(training_resumes);
    RUN(bytes_of_a_file);
    RUN(notes_come_back);
    RUN(fractions_are_exact);
    RUN(cut_at_every_byte);
    RUN(wrong_lengths);
    RUN(malicious_headers);
    RUN(deep_nests);
    RUN(unusual_headers);
    RUN(entries_tell);
    RUN(many_entries);
    RUN(random_damage);
    RUN(arena_too_small);
    RUN(timm_files);
    RUN(timm_relatives);
    RUN(wild_architectures);
    RUN(half_types);
    RUN(what_does_not_match);
    RUN(a_type_that_is_not_read);
    RUN(float64);
    RUN(odd_names);
    RUN(one_tensor_at_a_time);
    RUN(parts_of_a_model);
    RUN(parts_that_differ);
    RUN(portions);
    RUN(a_streamed_model);
    RUN(portions_that_do_not_fit);
    RUN(streams);
    RUN(a_full_device);
    RUN(a_writer_that_stops);
    RUN(dry_runs);
    RUN(constant_weights);
    return DONE("test_files");
}
