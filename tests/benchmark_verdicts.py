"""How often `compare` is right on this machine: 100 comparisons of equals, and 100 of a true factor of 1.5.

Run it as a script. It times real functions, so it is no unit test.
"""

from collections import Counter

import torch
from torch.func import jacfwd, jacrev, vmap

from funcdiff.measure import compare, environment


def repeated(times, func):
    """Return a function that does the same work so many times, and returns the last result."""

    def run(x):
        for _ in range(times):
            result = func(x)
        return result

    return run


def small_functions():
    torch.manual_seed(0)
    weight = torch.randn(16, 16)

    def predict(x):
        return torch.tanh(weight @ x)

    x, rows = torch.randn(16), torch.randn(64, 16)
    return [(torch.tanh, rows), (predict, x), (jacrev(predict), x), (jacfwd(predict), x), (vmap(jacrev(predict)), rows)]


def main(comparisons=100):
    functions = small_functions()
    equals, faster = Counter(), Counter()
    for i in range(comparisons):
        func, x = functions[i % len(functions)]
        candidates = {"once": repeated(2, func), "again": repeated(2, func), "half more": repeated(3, func)}
        comparison = compare(candidates, x, seed=i)
        equals[comparison.claim("once", faster_than="again").verdict] += 1
        faster[comparison.claim("again", faster_than="half more").verdict] += 1
    print(environment())
    print("two copies of one function:", dict(equals))
    print("1.5 times the work:", dict(faster))
    if min(equals["no difference"], faster["holds"]) < 0.95 * comparisons:
        raise SystemExit("expected the right verdict in at least 95 of 100")


if __name__ == "__main__":
    main()
