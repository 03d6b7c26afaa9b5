#!/usr/bin/env python3
"""One training step of SplitMask or BEiT in eager PyTorch, timed.

The peer of `build/bench step`: the same model, shapes, tokenizer work,
losses, clipping and AdamW, in float32 on the CPU, optimised as far as
eager PyTorch 1.13 allows:
  - both halves of each image are one batch of 2B; logits are made only at
    the positions that need them;
  - attention is one autograd function on contiguous heads: the scale rides
    on the product, the softmax is in place, only the weights are saved;
  - rows are moved by index_select both ways (its own backward, index_add,
    is serial), residuals are added in place;
  - masks are drawn before the clock starts, so they cost nothing here.
Needs torch only.

  python3 torch_step.py --method splitmask --model tiny --image 32 \\
      --patch 4 --batch 64 --vocab 8192 --threads 1 --steps 5
"""
import argparse
import os
import statistics
import sys
import time

MODELS = {"micro": (128, 6, 4), "tiny": (192, 12, 3), "small": (384, 12, 6),
          "base": (768, 12, 12)}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--method", choices=("splitmask", "beit"),
                   default="splitmask")
    p.add_argument("--model", choices=sorted(MODELS), default="micro")
    p.add_argument("--image", type=int, default=32)
    p.add_argument("--patch", type=int, default=4)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--vocab", type=int, default=1024)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--seconds", type=float, default=0,
                   help="go on until this much time is measured")
    p.add_argument("--warm", type=int, default=2)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--half", type=int, default=-1,
                   help="tokens from a copy of half the side; default: where"
                        " the patch is 16")
    p.add_argument("--adam", choices=("foreach", "loop"), default="loop")
    p.add_argument("--attention", choices=("function", "plain"),
                   default="function")
    p.add_argument("--head", choices=("pieces", "whole"), default="pieces",
                   help="the vocabulary's logits some rows at a time, or as"
                        " one tensor")
    p.add_argument("--serve", action="store_true",
                   help="after the warm-up, run --steps steps for each line"
                        " read from standard input")
    p.add_argument("--profile", action="store_true")
    return p.parse_args()


ARGS = arguments()
# Before torch is loaded: the libraries read these when they start.
os.environ["OMP_NUM_THREADS"] = str(ARGS.threads)
os.environ["OPENBLAS_NUM_THREADS"] = str(ARGS.threads)
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer_setup  # noqa: E402
peer_setup.choose_core_type()
peer_setup.keep_memory()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

EPS = 1e-6


class Attention(torch.autograd.Function):
    """softmax(q k' scale) v on qkv (B, N, 3D) with H heads."""

    @staticmethod
    def forward(ctx, qkv, B, N, H, K):
        scale = K ** -0.5
        heads = qkv.view(B, N, 3, H, K).permute(2, 0, 3, 1, 4)
        q, k, v = heads.contiguous().view(3, B * H, N, K).unbind(0)
        p = torch.empty(B * H, N, N)
        torch.baddbmm(p, q, k.transpose(1, 2), beta=0, alpha=scale, out=p)
        torch.softmax(p, -1, out=p)
        y = torch.bmm(p, v).view(B, H, N, K).transpose(1, 2)
        ctx.save_for_backward(q, k, v, p)
        ctx.size = B, N, H, K, scale
        return y.reshape(B * N, H * K)

    @staticmethod
    def backward(ctx, dy):
        q, k, v, p = ctx.saved_tensors
        B, N, H, K, scale = ctx.size
        d = dy.view(B, N, H, K).transpose(1, 2).contiguous()
        d = d.view(B * H, N, K)
        out = torch.empty(3, B * H, N, K)
        torch.bmm(p.transpose(1, 2), d, out=out[2])
        dp = torch.bmm(d, v.transpose(1, 2))
        ds = torch._softmax_backward_data(dp, p, -1, torch.float32)
        torch.baddbmm(out[0], ds, k, beta=0, alpha=scale, out=out[0])
        torch.baddbmm(out[1], ds.transpose(1, 2), q, beta=0, alpha=scale,
                      out=out[1])
        d = out.view(3, B, H, N, K).permute(1, 3, 0, 2, 4)
        return d.reshape(B * N, 3 * H * K), None, None, None, None


def plain_attention(qkv, B, N, H, K):
    heads = qkv.view(B, N, 3, H, K).permute(2, 0, 3, 1, 4)
    q, k, v = heads.contiguous().view(3, B * H, N, K).unbind(0)
    p = torch.bmm(q * K ** -0.5, k.transpose(1, 2)).softmax(-1)
    y = torch.bmm(p, v).view(B, H, N, K).transpose(1, 2)
    return y.reshape(B * N, H * K)


class Reorder(torch.autograd.Function):
    """Rows in another order: a permutation, so backward gathers too."""

    @staticmethod
    def forward(ctx, x, to, back):
        ctx.save_for_backward(back)
        return x.index_select(0, to)

    @staticmethod
    def backward(ctx, dy):
        return dy.index_select(0, ctx.saved_tensors[0]), None, None


class Pick(torch.autograd.Function):
    """Some rows, each once: backward writes them into zeros."""

    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, dy):
        dx = torch.zeros(ctx.shape)
        dx.index_copy_(0, ctx.saved_tensors[0], dy)
        return dx, None


class PiecesHead(torch.autograd.Function):
    """Mean cross-entropy of x w' + b, a few rows at a time: the gradients
    are taken while a piece's logits are in the cache, as a unit gradient is
    all that backward will ask for."""
    ROWS = 256

    @staticmethod
    def forward(ctx, x, w, b, label):
        dx = torch.empty_like(x)
        dw, db = torch.zeros_like(w), torch.zeros_like(b)
        total = x.new_zeros(())
        for i in range(0, len(x), PiecesHead.ROWS):
            rows = slice(i, min(i + PiecesHead.ROWS, len(x)))
            y = torch.addmm(b, x[rows], w.t())
            want = label[rows].view(-1, 1)
            total += F.cross_entropy(y, label[rows], reduction="sum")
            torch.softmax(y, 1, out=y)
            y.scatter_add_(1, want, y.new_full(want.shape, -1.0))
            torch.mm(y, w, out=dx[rows])
            dw.addmm_(y.t(), x[rows])
            db.add_(y.sum(0))
        ctx.save_for_backward(dx, dw, db)
        ctx.count = len(x)
        return total / len(x)

    @staticmethod
    def backward(ctx, gradient):
        dx, dw, db = ctx.saved_tensors
        gradient = gradient / ctx.count
        return dx.mul_(gradient), dw.mul_(gradient), db.mul_(gradient), None


def head_loss(x, w, b, label):
    if ARGS.head == "pieces":
        return PiecesHead.apply(x, w, b, label)
    return F.cross_entropy(F.linear(x, w, b), label)


def weight(*shape):
    return torch.nn.Parameter(torch.randn(*shape) * 0.02)


def constant(value, *shape):
    return torch.nn.Parameter(torch.full(shape, float(value)))


class Block:
    def __init__(self, D, H):
        self.D, self.H = D, H
        self.all = [
            constant(1, D), constant(0, D), weight(3 * D, D),
            constant(0, 3 * D), weight(D, D), constant(0, D),
            constant(1, D), constant(0, D), weight(4 * D, D),
            constant(0, 4 * D), weight(D, 4 * D), constant(0, D)]

    def __call__(self, x, B, N):
        (n1w, n1b, qw, qb, ow, ob, n2w, n2b, uw, ub, dw, db) = self.all
        D, H = self.D, self.H
        h = F.layer_norm(x, (D,), n1w, n1b, EPS)
        h = F.linear(h, qw, qb)
        if ARGS.attention == "function":
            h = Attention.apply(h, B, N, H, D // H)
        else:
            h = plain_attention(h, B, N, H, D // H)
        x = F.linear(h, ow, ob).add_(x)
        h = F.layer_norm(x, (D,), n2w, n2b, EPS)
        h = F.gelu(F.linear(h, uw, ub))
        return F.linear(h, dw, db).add_(x)


class Step:
    def __init__(self, a):
        D, L, H = MODELS[a.model]
        self.D, self.a = D, a
        self.n = (a.image // a.patch) ** 2
        d = 3 * a.patch ** 2
        self.patch_w, self.patch_b = weight(D, d), constant(0, D)
        self.position = weight(self.n, D)
        self.blocks = [Block(D, H) for _ in range(L)]
        self.norm = constant(1, D), constant(0, D)
        self.head = weight(a.vocab, D), constant(0, a.vocab)
        p = [self.patch_w, self.patch_b, self.position, *self.norm,
             *self.head]
        if a.method == "splitmask":
            self.decoder_embed = weight(D, D), constant(0, D)
            self.mask = weight(D)
            self.decoder_position = weight(self.n, D)
            self.decoder = [Block(D, H) for _ in range(2)]
            self.decoder_norm = constant(1, D), constant(0, D)
            p += [*self.decoder_embed, self.mask, self.decoder_position,
                  *self.decoder_norm]
            for k in self.decoder:
                p += k.all
        else:
            self.mask = weight(D)
            p += [self.mask]
        for k in self.blocks:
            p += k.all
        self.parameters = p
        plain = [t for t in p if t.dim() < 2 or t is self.position]
        others = {id(t) for t in plain}
        decayed = [t for t in p if id(t) not in others]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.05},
             {"params": plain, "weight_decay": 0.0}],
            lr=1.5e-3, betas=(0.9, 0.98), foreach=a.adam == "foreach")
        self.half = a.half if a.half >= 0 else int(a.patch == 16)
        w = 3 * (a.patch // (2 if self.half else 1)) ** 2
        book = torch.rand(a.vocab, w) * 2 - 1
        self.book = F.normalize(book, dim=1).t().contiguous()
        self.images = torch.randn(a.batch, 3, a.image, a.image)
        self.draw()

    def draw(self):
        """Halves of equal size (BEiT: 75 of 196 masked), as row indices."""
        B, n = self.a.batch, self.n
        order = torch.stack([torch.randperm(n) for _ in range(B)])
        base = torch.arange(B).view(B, 1) * n
        if self.a.method == "splitmask":
            s = n // 2
            first = order[:, :s].sort(1)[0]
            second = order[:, s:].sort(1)[0]
            seen = torch.cat((first + base, second + base))     # (2B, n/2)
            self.to = seen.reshape(-1)
            self.back = torch.argsort(self.to)
            # decoder rows are [seen | mask tokens] of a view, put in order
            place = torch.cat((torch.cat((first, second), 1),
                               torch.cat((second, first), 1)))  # (2B, n)
            views = torch.arange(2 * B).view(2 * B, 1) * n
            self.decoder_back = (place + views).reshape(-1)
            self.decoder_to = torch.argsort(self.decoder_back)
            hidden = torch.cat((second, first))
            self.hidden = (hidden + views).reshape(-1)
            self.targets = torch.cat((second + base, first + base))
            self.targets = self.targets.reshape(-1)
        else:
            m = round(n * 75 / 196)
            hidden = (order[:, :m].sort(1)[0] + base).reshape(-1)
            self.hidden = self.targets = hidden
            flags = torch.zeros(B * n, 1)
            flags[hidden] = 1
            self.flags = flags

    def patches(self, x, p):
        B, C, S, _ = x.shape
        g = S // p
        x = x.view(B, C, g, p, g, p).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(B * g * g, C * p * p)

    def tokens(self):
        x = self.images
        p = self.a.patch
        if self.half:
            x, p = F.avg_pool2d(x, 2), p // 2
        rows = self.patches(x, p)
        # pieces whose scores stay in the cache
        return torch.cat([(r @ self.book).argmax(1)
                          for r in rows.split(256)])

    def loss(self):
        a, D, n, B = self.a, self.D, self.n, self.a.batch
        with torch.no_grad():
            tokens = self.tokens()
        x = F.linear(self.patches(self.images, a.patch), self.patch_w,
                     self.patch_b)
        if a.method == "beit":
            x = torch.where(self.flags > 0, self.mask, x)
            x = x.view(B, n, D).add_(self.position).view(-1, D)
            for k in self.blocks:
                x = k(x, B, n)
            x = F.layer_norm(Pick.apply(x, self.hidden), (D,), *self.norm,
                             EPS)
            return head_loss(x, *self.head, tokens[self.targets])
        x = x.view(B, n, D).add_(self.position).view(-1, D)
        x = Reorder.apply(x, self.to, self.back)
        for k in self.blocks:
            x = k(x, 2 * B, n // 2)
        x = F.layer_norm(x, (D,), *self.norm, EPS)
        x = F.linear(x, *self.decoder_embed)
        x = torch.cat((x.view(2 * B, n // 2, D),
                       self.mask.expand(2 * B, n - n // 2, D)), 1)
        x = Reorder.apply(x.view(-1, D), self.decoder_to, self.decoder_back)
        x = x.view(2 * B, n, D).add_(self.decoder_position).view(-1, D)
        for k in self.decoder:
            x = k(x, 2 * B, n)
        x = F.layer_norm(x, (D,), *self.decoder_norm, EPS)
        inpaint = head_loss(Pick.apply(x, self.hidden), *self.head,
                            tokens[self.targets])
        z = F.normalize(x.view(2 * B, n, D).mean(1), dim=1)
        score = z[:B] @ z[B:].t() / 0.2
        label = torch.arange(B)
        match = (F.cross_entropy(score, label)
                 + F.cross_entropy(score.t(), label)) / 2
        return inpaint + match

    def run(self):
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 3.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.item()


def forward_macs(a):
    """Multiply-adds of the model per image, as `build/bench step` counts."""
    D, L, _ = MODELS[a.model]
    n = (a.image // a.patch) ** 2
    m = round(n * 75 / 196)
    if a.method == "beit":
        return L * n * (12 * D * D + 2 * n * D) + m * D * a.vocab
    return (L * n * (12 * D * D + n * D) + n * D * D
            + 2 * 2 * n * (12 * D * D + 2 * n * D) + n * D * a.vocab)


def memory(step):
    """At its peak; before the model was made; weights, gradients, moments
    (what is left beyond those is what a step needs)."""
    kept = sum(p.numel() for p in step.parameters) * 16 / 1e6
    print("peak_mb %.1f" % peer_setup.peak_mb())
    print("start_mb %.1f" % peer_setup.START_MB)
    print("kept_mb %.1f" % kept, flush=True)


def main():
    a = ARGS
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    peer_setup.describe(torch)
    step = Step(a)
    for _ in range(a.warm):
        loss = step.run()
    if a.profile:
        with torch.profiler.profile() as p:
            step.run()
        print(p.key_averages().table(sort_by="self_cpu_time_total",
                                     row_limit=25))
        return
    if a.serve:
        print("ready", flush=True)
        for _ in sys.stdin:
            times = []
            for _ in range(a.steps):
                start = time.perf_counter()
                step.run()
                times.append(time.perf_counter() - start)
            print("ms", 1e3 * statistics.median(times), flush=True)
        memory(step)
        return
    times = []
    while len(times) < a.steps or sum(times) < a.seconds:
        start = time.perf_counter()
        loss = step.run()
        times.append(time.perf_counter() - start)
    t = statistics.median(times)
    flops = 6.0 * forward_macs(a) * a.batch
    d = 3 * a.patch ** 2
    flops += 4.0 * step.n * step.D * d * a.batch       # no gradient to pixels
    print("loss %.4f" % loss)
    print("ms %.2f" % (1e3 * t))
    print("images_per_s %.2f" % (a.batch / t))
    print("gflops %.1f" % (flops / t / 1e9))
    memory(step)


if __name__ == "__main__":
    main()
