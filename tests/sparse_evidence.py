"""What sparse derivatives are held to, measured: a table of goals and results, on one core, in processor time.

`python tests/sparse_evidence.py` takes a minute or two, and `--stiff 64` minutes more: without a Jacobian, SciPy's
solver takes that long. Where JAX and asdex are installed, they are run beside ours.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sparse_problems import arrow, both_full, brusselator, heat, last_row_full, rosenbrock
from torch.func import jacrev, jvp

import funcdiff as fd

torch.set_num_threads(1)


def seconds(func, *args):
    start = time.process_time()
    result = func(*args)
    return time.process_time() - start, result


def paired(rounds, **funcs):
    """The least and the middle time of each, in turn."""
    times = {name: [] for name in funcs}
    for _ in range(rounds):
        for name, func in funcs.items():
            times[name].append(seconds(func)[0])
    return {name: (min(some), float(np.median(some))) for name, some in times.items()}


def told(what, goal, got):
    print(f"| {what} | {goal} | {got} |", flush=True)


def ms(pair):
    return f"{1e3 * pair[0]:.2f} least, {1e3 * pair[1]:.2f} median"


def grid(side):
    return torch.rand((2, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def off(matrix, func, x):
    """The largest difference of a product with the matrix from one with the function, or of dense matrices."""
    if x.numel() <= 2048:
        want = jacrev(func)(x).reshape(-1, x.numel())
        return float((matrix.to_dense() - want).abs().max())
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    return float((matrix @ v.reshape(-1) - jvp(func, (x,), (v,))[1].reshape(-1)).abs().max())


def stencil(rounds):
    fd.jacobian_sparse(brusselator)(grid(4))  # what torch loads at a first call is nobody's
    for side in (8, 16, 32, 64, 128, 256):
        y, transform = grid(side), fd.jacobian_sparse(brusselator)
        gap, passes = off(transform(y), brusselator, y), fd.jacobian_pattern(brusselator, y).passes
        told(f"Brusselator, n = {y.numel()}: passes; gap", "12; rounding", f"{passes}; {gap:.1e}")
    y = grid(256)
    spent = min(seconds(lambda: fd.jacobian_pattern(brusselator, y).passes)[0] for _ in range(3))
    told("n = 131072: pattern and colours, ms", "400", f"{1e3 * spent:.0f}")
    transform = fd.jacobian_sparse(brusselator)
    first, _ = seconds(transform, y)
    line = fd.prepare(transform, y)
    preparing, compiled = seconds(lambda: fd.prepare(transform, y))[0], torch.compile(line)
    compiling, _ = seconds(compiled, y)
    times = paired(rounds, comes=lambda: transform(y), line=lambda: line(y), compiled=lambda: compiled(y))
    told("n = 131072: the matrix as it comes, ms", "60", ms(times["comes"]))
    told("n = 131072: prepared, ms", "6", ms(times["line"]))
    told("n = 131072: prepared and compiled, ms", "6", ms(times["compiled"]))
    told("n = 131072: to prepare; to compile, s", "", f"{preparing:.2f}; {compiling:.1f}")
    child = subprocess.run([sys.executable, __file__, "--memory"], check=True, capture_output=True, text=True)
    told("n = 131072: memory for pattern and colours; for the matrix too, MB", "150", child.stdout.strip())
    told("n = 131072: all in the first call, s", "", f"{first:.2f}")
    beside_asdex(y, first)
    y = grid(20)
    dense = jacrev(brusselator)
    one, _ = zip(*(seconds(lambda: fd.jacobian_sparse(brusselator)(y)) for _ in range(5)), strict=True)
    whole, _ = zip(*(seconds(dense, y) for _ in range(5)), strict=True)
    told("n = 800: dense over sparse, one call with the search", "1", f"{min(whole) / min(one):.2f}")
    y = grid(64)
    transform, whole = fd.jacobian_sparse(brusselator), min(seconds(dense, y)[0] for _ in range(2))
    transform(y)
    line = fd.prepare(transform, y)
    times = paired(rounds, comes=lambda: transform(y), line=lambda: line(y))
    told("n = 8192: dense over sparse, later calls", "200", f"{whole / times['comes'][1]:.0f}")
    told("n = 8192: dense over prepared", "", f"{whole / times['line'][1]:.0f}")


def memory():
    """How far the peak of a fresh process grows."""
    y, transform = grid(256), fd.jacobian_sparse(brusselator)
    transform(grid(4))
    start = peak()
    fd.jacobian_pattern(brusselator, y).passes  # noqa: B018  # a property that is computed when it is read
    pattern = peak()
    transform(y)
    print(f"{pattern - start:.0f}; {peak() - start:.0f}")


def peak():
    """In MB; Linux tells it for the program alone, without what its parent used."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def beside_asdex(y, ours):
    try:
        import asdex
        import jax
        import jax.numpy as jnp
    except ImportError:
        return

    def laplacian(u):
        return jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4 * u

    def func(y):
        u, v = y.reshape(2, 256, 256)
        du = 1 + u * u * v - 4.4 * u + 0.1 * laplacian(u)
        return jnp.stack([du, 3.4 * u - u * u * v + 0.1 * laplacian(v)]).reshape(-1)

    with jax.enable_x64(True):
        given = jnp.asarray(y.reshape(-1).numpy())
        theirs, call = seconds(lambda: jax.jit(asdex.jacobian(func, given)))
        first, _ = seconds(lambda: jax.block_until_ready(call(given)))
        later = paired(5, call=lambda: jax.block_until_ready(call(given)))["call"]
    told("n = 131072: asdex's first call over ours", "10", f"{(theirs + first) / ours:.1f} ({theirs + first:.2f} s)")
    told("n = 131072: asdex later, ms", "", ms(later))


def chains(rounds):
    fd.hessian_sparse(rosenbrock)(torch.rand(9, dtype=torch.float64))
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = min(seconds(lambda: fd.hessian_sparse(rosenbrock)(x))[0] for _ in range(3))
    transform = fd.hessian_sparse(rosenbrock)
    transform(x)
    line = fd.prepare(transform, x)
    times = paired(rounds, comes=lambda: transform(x), line=lambda: line(x))
    told("Rosenbrock, n = 100000: passes", "3", fd.hessian_pattern(rosenbrock, x).passes)
    told("Rosenbrock: all in the first call, ms", "400", f"{1e3 * first:.0f}")
    told("Rosenbrock: later, ms; prepared", "10", f"{ms(times['comes'])}; {ms(times['line'])}")
    told("arrow Hessian, n = 10000: passes", "O(1)", fd.hessian_pattern(arrow, x[:10_000]).passes)
    for func in (last_row_full, both_full):
        told(f"{func.__name__}, n = 10000: passes", "O(1)", fd.jacobian_pattern(func, x[:10_000]).passes)
    u = x[:4096].reshape(64, 64)
    told("heat by conv2d: passes; gap", "", f"{fd.jacobian_pattern(heat, u).passes}; {gap_of(heat, u):.1e}")
    graph = torch.randint(10_000, (2, 30_000), generator=torch.Generator().manual_seed(0))
    passing = lambda h: torch.zeros_like(h).scatter_add(0, graph[1], (h[graph[0]] - h[graph[1]]).sin())  # noqa: E731  # shorter than a def
    h = x[:10_000]
    told(
        "messages, 10000 nodes: passes; gap", "", f"{fd.jacobian_pattern(passing, h).passes}; {gap_of(passing, h):.1e}"
    )
    network = torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3)).double()
    told("1000 rows, 5 to 3: passes", "3", fd.jacobian_pattern(network, x[:5000].view(1000, 5)).passes)


def gap_of(func, x):
    return off(fd.jacobian_sparse(func)(x), func, x)


def stiff(side):
    from scipy.integrate import solve_ivp

    from funcdiff.arrays import numpy_function

    def laplacian(u):
        return u.roll(1, 0) + u.roll(-1, 0) + u.roll(1, 1) + u.roll(-1, 1) - 4 * u

    def rate(t, y):
        u, v = y.reshape(2, side, side)
        du = 1 + u * u * v - 4.4 * u + 0.02 * side**2 * laplacian(u)
        return torch.stack([du, 3.4 * u - u * u * v + 0.02 * side**2 * laplacian(v)]).reshape(-1)

    x = np.arange(side) / side
    y0 = np.concatenate([np.tile(22 * x * (1 - x) ** 1.5, side), np.repeat(27 * x * (1 - x) ** 1.5, side)])

    def solve(how):
        return solve_ivp(numpy_function(rate), (0, 1), y0, method="BDF", rtol=1e-4, atol=1e-5, **how()).y[:, -1]

    def known():
        pattern = fd.jacobian_pattern(rate, torch.tensor(0.0), torch.from_numpy(y0), argnums=1)
        return {"jac_sparsity": pattern.scipy()}

    ways = {"sparse": lambda: {"jac": numpy_function(fd.jacobian_sparse(rate, 1))}, "pattern": known, "none": dict}
    solve(ways["sparse"])
    found = {name: seconds(solve, how) for name, how in ways.items()}
    for name in ("pattern", "sparse"):
        gap = np.abs(found[name][1] - found["none"][1]).max()
        ratio = found["none"][0] / found[name][0]
        told(
            f"stiff, n = {len(y0)}: no Jacobian over {name}; gap",
            "80",
            f"{ratio:.0f} ({found[name][0]:.2f} s); {gap:.1e}",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--stiff", type=int, help="the side of the grid")
    parser.add_argument("--memory", action="store_true", help="only that, in a process of its own")
    given = parser.parse_args()
    if given.memory:
        memory()
        raise SystemExit
    print("| what | goal | measured |\n|---|---|---|")
    stencil(given.rounds)
    chains(given.rounds)
    if given.stiff:
        stiff(given.stiff)
