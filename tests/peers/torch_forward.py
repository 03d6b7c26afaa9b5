#!/usr/bin/env python3
"""ViT inference in eager PyTorch, timed: the peer of `build/bench forward`.

Patch embedding, positions, blocks, final norm; no class token, no head.
Written for speed: no gradients, contiguous heads, in-place softmax, GELU
and residuals.

  python3 torch_forward.py --model tiny --batch 1 --threads 1
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
    p.add_argument("--model", choices=sorted(MODELS), default="tiny")
    p.add_argument("--image", type=int, default=224)
    p.add_argument("--patch", type=int, default=16)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--repeat", type=int, default=7)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--serve", action="store_true",
                   help="run --repeat times for each line on standard input")
    return p.parse_args()


ARGS = arguments()
os.environ["OMP_NUM_THREADS"] = str(ARGS.threads)
os.environ["OPENBLAS_NUM_THREADS"] = str(ARGS.threads)
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer_setup  # noqa: E402
peer_setup.choose_core_type()
peer_setup.keep_memory()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402


class Model:
    def __init__(self, a):
        D, L, H = MODELS[a.model]
        self.a, self.D, self.H = a, D, H
        self.n = (a.image // a.patch) ** 2
        r = lambda *s: torch.randn(*s) * 0.02      # noqa: E731
        one, zero = torch.ones(D), torch.zeros(D)
        self.embed = r(D, 3 * a.patch ** 2), zero
        self.position = r(self.n, D)
        self.norm = one, zero
        self.blocks = [(one, zero, r(3 * D, D), torch.zeros(3 * D), r(D, D),
                        zero, one, zero, r(4 * D, D), torch.zeros(4 * D),
                        r(D, 4 * D), zero) for _ in range(L)]

    def block(self, x, k):
        n1w, n1b, qw, qb, ow, ob, n2w, n2b, uw, ub, dw, db = k
        B, N, D, H = self.a.batch, self.n, self.D, self.H
        K = D // H
        h = F.linear(F.layer_norm(x, (D,), n1w, n1b, 1e-6), qw, qb)
        h = h.view(B, N, 3, H, K).permute(2, 0, 3, 1, 4).contiguous()
        q, key, v = h.view(3, B * H, N, K).unbind(0)
        p = torch.empty(B * H, N, N)
        torch.baddbmm(p, q, key.transpose(1, 2), beta=0, alpha=K ** -0.5,
                      out=p)
        torch.softmax(p, -1, out=p)
        h = torch.bmm(p, v).view(B, H, N, K).transpose(1, 2)
        x = F.linear(h.reshape(B * N, D), ow, ob).add_(x)
        h = F.linear(F.layer_norm(x, (D,), n2w, n2b, 1e-6), uw, ub)
        torch._C._nn.gelu_(h)
        return F.linear(h, dw, db).add_(x)

    def __call__(self, images):
        B, C, S, _ = images.shape
        p, g = self.a.patch, S // self.a.patch
        x = images.view(B, C, g, p, g, p).permute(0, 2, 4, 1, 3, 5)
        x = F.linear(x.reshape(B * g * g, C * p * p), *self.embed)
        x.view(B, self.n, self.D).add_(self.position)
        for k in self.blocks:
            x = self.block(x, k)
        return F.layer_norm(x, (self.D,), *self.norm, 1e-6)


def main():
    a = ARGS
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    torch.set_grad_enabled(False)
    peer_setup.describe(torch)
    model = Model(a)
    images = torch.randn(a.batch, 3, a.image, a.image)

    def sample():
        times = []
        for _ in range(a.repeat):
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    sample()
    if a.serve:
        print("ready", flush=True)
        for _ in sys.stdin:
            print("ms", 1e3 * sample(), flush=True)
        return
    t = sample()
    D, L, _ = MODELS[a.model]
    n = model.n
    macs = L * n * (12 * D * D + 2 * n * D) + n * D * 3 * a.patch ** 2
    print("ms %.3f" % (1e3 * t))
    print("images_per_s %.2f" % (a.batch / t))
    print("gflops %.1f" % (2e-9 * macs * a.batch / t))
    print("peak_mb %.1f" % peer_setup.peak_mb())


if __name__ == "__main__":
    main()
