"""What the PyTorch peers share: the choice of OpenBLAS's kernels, and a
few lines that state what really ran."""
import ctypes
import os
import re
import resource
import sys

START_MB = 0.0


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def flags():
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("flags"):
                    return set(line.split())
    except OSError:
        pass
    return set()


def choose_core_type():
    """OpenBLAS picks kernels by model number and falls back to SSE on one it
    does not know; the flags show what the processor can do. Call before the
    library is loaded. A value set by the caller stands."""
    if "OPENBLAS_CORETYPE" not in os.environ:
        have = flags()
        if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= have:
            os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
        elif "avx2" in have:
            os.environ["OPENBLAS_CORETYPE"] = "Haswell"


def keep_memory():
    """Let malloc keep what is freed. By default the system maps and zeroes
    each large tensor again, which costs eager PyTorch 10 to 20 %. glibc
    reads these when the process starts, so start it again."""
    if "PEER_MALLOC" in os.environ or sys.platform != "linux":
        return
    os.environ["PEER_MALLOC"] = "kept"
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 33))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 33))
    os.environ.setdefault("MALLOC_TOP_PAD_", str(1 << 26))
    os.execv(sys.executable, [sys.executable] + sys.argv)


def loaded(pattern):
    names = set()
    try:
        with open("/proc/self/maps") as f:
            for line in f:
                path = line.split()[-1]
                if path.startswith("/") and re.search(pattern, path):
                    names.add(os.path.realpath(path))
    except OSError:
        pass
    return sorted(names)


def describe(torch):
    """Print the configuration that a ratio against this run is against."""
    global START_MB
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))   # loads what is lazy
    START_MB = peak_mb()
    print("# torch", torch.__version__, "threads", torch.get_num_threads(),
          "vector", os.environ.get("ATEN_CPU_CAPABILITY", "default"),
          "malloc", os.environ.get("PEER_MALLOC", "default"))
    blas = loaded(r"blas")
    for path in blas:
        text = path
        try:
            lib = ctypes.CDLL(path)
            lib.openblas_get_corename.restype = ctypes.c_char_p
            kind = ("serial", "pthreads", "OpenMP")
            text += " core %s, %s, %d threads" % (
                lib.openblas_get_corename().decode(),
                kind[lib.openblas_get_parallel()],
                lib.openblas_get_num_threads())
        except (OSError, AttributeError):
            pass
        print("# blas", text)
    omp = loaded(r"lib(g|i)?omp[.0-9]*so|libomp|libgomp|libiomp")
    print("# openmp", " ".join(omp) or "none")
    if len(omp) > 1:
        print("# WARNING: more than one OpenMP runtime is loaded")
