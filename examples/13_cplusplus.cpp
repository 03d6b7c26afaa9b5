// 13  C++: the same header, with a little class around it.
//
// Shows   that the header is C++11, too; how a destructor frees the memory;
//         and how the sticky error becomes an exception at the one place
//         that checks it.
// Build   c++ -O2 -I. examples/13_cplusplus.cpp -o build/13_cplusplus -lm
// Prints  the plan of a training run and the loss falling. Returns 1 if it
//         does not fall.

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

// Owns a context. Tensors belong to it, so it must outlive them; it cannot
// be copied, because they point into it.
class Context {
public:
    explicit Context(size_t bytes, uint64_t seed = 0)
    {
        smask_desc desc = smask_desc();
        desc.memory_size = bytes;
        desc.seed = seed;
        smask_setup(&c_, &desc);
        check();
    }
    ~Context() { smask_shutdown(&c_); }
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;

    operator smask_ctx *() { return &c_; }

    void check() const
    {
        if (smask_error(&c_) != SMASK_OK)
            throw std::runtime_error(
                std::string(smask_result_text(smask_error(&c_))) + " ("
                + smask_detail(&c_) + ")");
    }

private:
    smask_ctx c_;
};

// A step that ends when the scope does, whatever happens in it.
class Step {
public:
    explicit Step(smask_ctx *c) : c_(c) { smask_begin_step(c_); }
    ~Step() { smask_end_step(c_); }
    Step(const Step &) = delete;
    Step &operator=(const Step &) = delete;

private:
    smask_ctx *c_;
};

struct Trainer {
    static const int32_t side = 16, batch = 16;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    std::vector<float> images;

    Trainer() : vit(), tok(), adam(), images(batch * side * side) {}

    void init(smask_ctx *c)
    {
        smask_vit_desc model = smask_vit_desc();    // all zero: defaults
        smask_adam_desc optim = smask_adam_desc();
        model.image = side;
        model.channels = 1;
        model.vocabulary = 64;
        model.dim = 32;
        model.depth = model.heads = 2;
        model.decoder_depth = 1;
        optim.lr = 2e-3f;
        smask_vit_init(c, &vit, &model);
        const smask_tokenizer_desc codebook = smask_tokenizer_desc_for(&vit);
        smask_tokenizer_init(c, &tok, &codebook);
        smask_adam_init(c, &adam, &optim, &vit.params);
    }

    // Rings of random place and width.
    void draw(smask_random *r)
    {
        for (int32_t b = 0; b < batch; b++) {
            const float cx = 16 * smask_uniform(r), cy = 16 * smask_uniform(r);
            const float wave = 0.5f + 0.7f * smask_uniform(r);
            for (int32_t i = 0; i < side * side; i++) {
                const float u = static_cast<float>(i % side) - cx;
                const float v = static_cast<float>(i / side) - cy;
                images[static_cast<size_t>(b * side * side + i)]
                    = std::cos(wave * std::sqrt(u * u + v * v));
            }
        }
    }

    smask_losses step(smask_ctx *c)
    {
        smask_losses out = smask_losses();
        Step step(c);
        smask_tensor *loss = smask_splitmask_loss(c, &vit, &tok, nullptr,
            images.data(), batch, &out);
        smask_backward(c, loss);
        smask_adam_update(c, &adam, &vit.params);
        return out;
    }
};

int main()
{
    try {
        Trainer trainer;
        smask_sizes sizes;
        // A lambda that captures nothing is a C function pointer.
        if (smask_plan(nullptr, [](smask_ctx *c, void *user) {
                Trainer *t = static_cast<Trainer *>(user);
                t->init(c);
                t->step(c);
                return smask_error(c);
            }, &trainer, &sizes) != SMASK_OK)
            throw std::runtime_error("the plan failed");
        std::printf("planned: %lu bytes\n",
                    static_cast<unsigned long>(sizes.bytes));

        Context c(sizes.bytes);
        smask_random r;
        smask_seed(&r, 13, 0);
        trainer.init(c);
        float first = 0, last = 0;
        for (int step = 0; step <= 200; step++) {
            trainer.draw(&r);
            last = trainer.step(c).total;
            c.check();
            if (step == 0) first = last;
            if (step % 50 == 0)
                std::printf("step %3d   loss %.3f\n", step,
                            static_cast<double>(last));
        }
        return last < 0.9f * first ? 0 : 1;
    } catch (const std::exception &e) {
        std::fprintf(stderr, "13_cplusplus: %s\n", e.what());
        return 1;
    }
}
