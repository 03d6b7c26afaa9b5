#!/usr/bin/env python3
"""ViT inference in ONNX Runtime, timed: a peer of `build/bench forward`.

The graph is built with `onnx` (opset 17; GELU from Erf, which the
runtime fuses, as it fuses layer norm and residual) at the same shapes as
torch_forward.py, all optimisations on. Needs onnxruntime, onnx and numpy:

  python3 -m venv /tmp/v && /tmp/v/bin/pip install onnxruntime onnx numpy
  /tmp/v/bin/python onnx_forward.py --model tiny --batch 1 --threads 1
"""
import argparse
import resource
import statistics
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

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


class Graph:
    """Nodes and constants, in the order they are asked for."""

    def __init__(self, seed):
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(seed)

    def constant(self, value):
        name = "c%d" % len(self.constants)
        self.constants.append(numpy_helper.from_array(np.asarray(value),
                                                      name))
        return name

    def weight(self, *shape):
        w = self.random.standard_normal(shape, np.float32)
        return self.constant(w * np.float32(0.02))

    def op(self, kind, *inputs, **attributes):
        name = "t%d" % len(self.nodes)
        self.nodes.append(helper.make_node(kind, inputs, [name],
                                           **attributes))
        return name

    def shape(self, *sizes):
        return self.constant(np.array(sizes, np.int64))

    def scalar(self, value):
        return self.constant(np.float32(value))

    def linear(self, x, inner, outer):
        y = self.op("MatMul", x, self.weight(inner, outer))
        return self.op("Add", y, self.constant(np.zeros(outer, np.float32)))

    def norm(self, x, D):
        return self.op("LayerNormalization", x,
                       self.constant(np.ones(D, np.float32)),
                       self.constant(np.zeros(D, np.float32)),
                       axis=-1, epsilon=1e-6)

    def gelu(self, x):
        e = self.op("Erf", self.op("Div", x, self.scalar(2 ** 0.5)))
        y = self.op("Mul", x, self.op("Add", e, self.scalar(1)))
        return self.op("Mul", y, self.scalar(0.5))

    def attention(self, x, B, N, D, H):
        K = D // H
        parts = []
        for order in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
            y = self.op("Reshape", self.linear(x, D, D),
                        self.shape(B, N, H, K))
            parts.append(self.op("Transpose", y, perm=order))
        p = self.op("MatMul", parts[0], parts[1])
        p = self.op("Div", p, self.scalar(K ** 0.5))
        p = self.op("Softmax", p, axis=-1)
        y = self.op("Transpose", self.op("MatMul", p, parts[2]),
                    perm=(0, 2, 1, 3))
        y = self.op("Reshape", y, self.shape(B, N, D))
        return self.linear(y, D, D)


def model(a):
    D, L, H = MODELS[a.model]
    n = (a.image // a.patch) ** 2
    B, p, side = a.batch, a.patch, a.image // a.patch
    g = Graph(a.seed)
    x = g.op("Conv", "images", g.weight(D, 3, p, p),
             g.constant(np.zeros(D, np.float32)), kernel_shape=[p, p],
             strides=[p, p])
    x = g.op("Reshape", x, g.shape(B, D, side * side))
    x = g.op("Transpose", x, perm=(0, 2, 1))
    x = g.op("Add", x, g.weight(1, n, D))
    for _ in range(L):
        x = g.op("Add", x, g.attention(g.norm(x, D), B, n, D, H))
        h = g.gelu(g.linear(g.norm(x, D), D, 4 * D))
        x = g.op("Add", x, g.linear(h, 4 * D, D))
    y = g.norm(x, D)
    graph = helper.make_graph(
        g.nodes, "vit",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT,
                                       [B, 3, a.image, a.image])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [B, n, D])],
        g.constants)
    made = helper.make_model(graph,
                             opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made, L * n * (12 * D * D + 2 * n * D) + n * D * 3 * p * p


def main():
    a = arguments()
    made, macs = model(a)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = a.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options,
        providers=["CPUExecutionProvider"])
    print("# onnxruntime", onnxruntime.__version__, "threads", a.threads)
    images = np.random.default_rng(a.seed).standard_normal(
        (a.batch, 3, a.image, a.image), np.float32)

    def sample():
        times = []
        for _ in range(a.repeat):
            start = time.perf_counter()
            session.run(None, {"images": images})
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    sample()
    if a.serve:
        print("ready", flush=True)
        for _ in sys.stdin:
            print("ms", 1e3 * sample(), flush=True)
        return
    t = sample()
    print("ms %.3f" % (1e3 * t))
    print("images_per_s %.2f" % (a.batch / t))
    print("gflops %.1f" % (2e-9 * macs * a.batch / t))
    print("peak_mb %.1f" % (resource.getrusage(resource.RUSAGE_SELF)
                            .ru_maxrss * 1024 / 1e6))


if __name__ == "__main__":
    main()
