/* test_cxx.cpp: the header in C++11. Built twice: with the implementation
   compiled as C++, and with CXX_LINK against the object that C made. */
#define SPLITMASK_THREADS
#include "splitmask.h"
#ifndef CXX_LINK
#define SPLITMASK_IMPLEMENTATION
#endif
#include "splitmask.h"
#include "splitmask.h"
#include "test.h"
#include <vector>

static void texts()
{
    CHECK_TEXT(smask_result_text(SMASK_OK), "ok");
    CHECK_TEXT(SMASK_VERSION, "0.2.0");
}

/* A model trains, in memory of a vector and pieces run by a lambda. */
static void trains()
{
    std::vector<unsigned char> memory(8u << 20);
    std::vector<float> images(4 * 3 * 8 * 8);
    smask_desc desc = smask_desc();
    smask_vit_desc model = smask_vit_desc();
    smask_tokenizer_desc codebook = smask_tokenizer_desc();
    smask_ctx c;
    smask_vit v;
    smask_tokenizer t;
    smask_adam a;
    smask_losses out;
    float first = 0, last = 0;
    int pieces = 0;

    for (std::size_t i = 0; i < images.size(); i++)
        images[i] = static_cast<float>(i * 7 % 11) / 4 - 1.2f;
    desc.memory = memory.data();
    desc.memory_size = memory.size();
    desc.parallel.workers = 1;
    desc.parallel.user = &pieces;
    desc.parallel.run = [](void *user, int count,
            void (*fn)(void *arg, int piece, int worker), void *arg) {
        *static_cast<int *>(user) += count;
        for (int i = 0; i < count; i++) fn(arg, i, 0);
    };
    model.image = codebook.image = 8;
    model.dim = 32;
    model.depth = 2;
    model.heads = 2;
    model.vocabulary = codebook.vocabulary = 16;
    model.decoder_depth = 1;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
    SAME(smask_tokenizer_init(&c, &t, &codebook), SMASK_OK);
    SAME(smask_adam_init(&c, &a, nullptr, &v.params), SMASK_OK);
    for (int step = 0; step < 30; step++) {
        smask_begin_step(&c);
        smask_tensor *loss = smask_splitmask_loss(&c, &v, &t, nullptr,
            images.data(), 4, &out);
        if (smask_backward(&c, loss) == SMASK_OK)
            smask_adam_update(&c, &a, &v.params);
        smask_end_step(&c);
        if (step == 0) first = out.total;
        last = out.total;
    }
    SAME(smask_error(&c), SMASK_OK);
    CHECK(last < first);
    CHECK(pieces > 0);
    smask_shutdown(&c);
}

static void crews()
{
    smask_desc desc = smask_desc();
    smask_threads pool;
    smask_ctx c;
    std::vector<float> x(100 * 100, 1.0f), y(100 * 100);

    SAME(smask_threads_start(&pool, 2), SMASK_OK);
    desc.parallel = smask_threads_hook(&pool);
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(smask_gemm(&c, SMASK_NT, 100, 100, 100, x.data(), 100, x.data(),
        100, y.data(), 100, 0), SMASK_OK);
    CHECK(y[0] == 100 && y[9999] == 100);
    smask_shutdown(&c);
    smask_threads_stop(&pool);
}

static void errors()
{
    smask_ctx c;

    SAME(smask_setup(&c, nullptr), SMASK_OK);
    CHECK(smask_linear(&c, smask_parameter(&c, 2, 3, 0, 0),
        smask_parameter(&c, 2, 4, 0, 0), nullptr) == nullptr);
    SAME(smask_error(&c), SMASK_SHAPE);
    smask_shutdown(&c);
}

int main()
{
    RUN(texts);
    RUN(trains);
    RUN(crews);
    RUN(errors);
#ifdef CXX_LINK
    return DONE("test_cxx_link");
#else
    return DONE("test_cxx");
#endif
}
