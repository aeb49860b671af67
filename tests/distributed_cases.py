"""What the tests of funcdiff.distributed run in each process: a result beside that of one process alone."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import funcdiff as fd
from funcdiff import distributed

ROWS = 7
SHARES = {  # the rows of each process, by the number of processes
    "unequal": {2: [(0, 5), (5, 7)], 3: [(0, 4), (4, 6), (6, 7)]},
    "one empty": {2: [(0, 7), (7, 7)], 3: [(0, 3), (3, 3), (3, 7)]},
}


def data():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64)
    return X, X.sin().sum(1, keepdim=True) * torch.ones(1, 3, dtype=torch.float64)


def own(share):
    start, stop = SHARES[share][dist.get_world_size()][dist.get_rank()]
    X, Y = data()
    return X[start:stop], Y[start:stop]


def network(kind="plain"):
    torch.manual_seed(2)
    norm = {"plain": nn.Identity(), "batch norm": nn.BatchNorm1d(5), "layer norm": nn.LayerNorm(5)}[kind]
    net = nn.Sequential(nn.Linear(4, 5), norm, nn.Tanh(), nn.Linear(5, 3)).double()
    net(data()[0])  # statistics of a batch norm
    return net.eval()


def mean_loss(predict, X, Y):
    return lambda parameters: (predict(parameters, X) - Y).square().sum(1).mean()


def sum_loss(predict, X, Y):
    return lambda parameters: (predict(parameters, X) - Y).square().sum()


def direction(parameters):
    generator = torch.Generator().manual_seed(3)
    return {k: torch.randn(x.shape, generator=generator, dtype=x.dtype) for k, x in parameters.items()}


def whole(x):
    return x.full_tensor() if isinstance(x, DTensor) else x


def gap(found, expected):
    """The largest difference of the entries."""
    ours, theirs = (torch.utils._pytree.tree_leaves(tree) for tree in (found, expected))
    assert len(ours) == len(theirs)
    for x, y in zip(ours, theirs, strict=True):
        assert whole(x).shape == y.shape, (whole(x).shape, y.shape)
        assert whole(x).dtype == y.dtype
    gaps = [(whole(x) - y).abs().max().item() if y.numel() else 0.0 for x, y in zip(ours, theirs, strict=True)]
    return max(gaps)


def product(share, mean, kind, sharded):
    """The Hessian-vector product of a loss over all rows."""
    X, Y = own(share)
    make = mean_loss if mean else sum_loss
    predict, parameters = fd.module_function(network(kind))
    v = direction(parameters)
    expected = fd.hvp(make(predict, *data()), (parameters,), (v,))
    if sharded:
        net = network(kind)
        for layer in (net[0], net[3], net):
            fully_shard(layer)
        predict, parameters = fd.module_function(net)
        assert all(isinstance(x, DTensor) for x in parameters.values())
        v = {k: distribute_tensor(x, parameters[k].device_mesh, parameters[k].placements) for k, x in v.items()}
    operator = distributed.hvp_operator(make(predict, X, Y), parameters, samples=len(X) if mean else None)
    found = operator(v)
    if sharded:
        assert all(found[k].placements == x.placements for k, x in parameters.items())
    again = operator(v)
    assert all(torch.equal(whole(found[k]), whole(again[k])) for k in found)
    return gap(found, expected), {k: whole(x) for k, x in found.items()}


def row(x):
    return torch.stack([x[0] * x[1], x[1].sin(), x[2] ** 3, x.prod(), x[0].exp()])


def tall(x):
    return torch.stack([(k + 1) * x.sin().sum() * x[k % 4] for k in range(9)])


def number(x):
    return (x.outer(x).sin() * torch.arange(4.0, dtype=torch.float64)).sum()


def of_tree(tree):
    return {"a": tree["w"] @ tree["x"], "b": (tree["w"].sin().sum() * tree["s"])}


def layer_normed(x):
    weight = torch.linspace(1, 2, 4, dtype=torch.float64)
    return torch.nn.functional.layer_norm(x, (4,), weight * x).pow(3).sum()


FUNCTIONS = {"row": row, "tall": tall, "number": number, "layer norm": layer_normed}


def point():
    return torch.tensor([0.3, -1.2, 0.7, 2.0], dtype=torch.float64)


def tree_point():
    generator = torch.Generator().manual_seed(5)
    return {
        "w": torch.randn(5, 4, generator=generator, dtype=torch.float64),
        "x": torch.randn(4, generator=generator, dtype=torch.float64),
        "s": torch.tensor(1.5, dtype=torch.float64),
    }


def transform(name, func, options, sharded):
    """A Jacobian or a Hessian, its parts and the whole."""
    f = FUNCTIONS[func]
    x = point()
    expected = getattr(fd, name)(f)(x)
    if sharded:
        x = distribute_tensor(x, init_device_mesh("cpu", (dist.get_world_size(),)), [Shard(0)])
    recipe = getattr(distributed, name)(f, **options)
    found = recipe(x)
    assert isinstance(found, DTensor) != options.get("gather", False)
    return max(gap(found, expected), gap(recipe(x), expected)), getattr(found, "placements", None)


def trees(name, options):
    """The same with respect to a tree, to a tree."""
    return gap(getattr(distributed, name)(of_tree, **options)(tree_point()), getattr(fd, name)(of_tree)(tree_point()))


def rows(name, where, count):
    """A derivative for every row."""
    X = torch.randn(count, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    f = lambda x: torch.stack([x[0] * x[1], x.prod()])  # noqa: E731  # as short as the others
    expected = getattr(fd, name)(f)(X)
    if where != "replicated":
        placement = Shard(0) if where == "sharded" else Replicate()
        X = distribute_tensor(X, init_device_mesh("cpu", (dist.get_world_size(),)), [placement])
    found = getattr(distributed, name)(f)(X)
    return gap(found, expected), len(found.to_local())


def tied(predict, X):
    return lambda p: predict(p, X).square().mean()


def unusual(name):
    """A product at a point of an unusual kind, beside that of one process with all rows."""
    X, _ = own("unequal")
    everything, _ = data()
    n = len(X)
    columns = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6).t()[::2]  # not contiguous
    points = {
        "not contiguous": (columns, lambda X: lambda w: (X @ w.T).sin().square().sum(1).mean()),
        "expanded": (torch.ones(1, 4, dtype=torch.float64).expand(3, 4), lambda X: lambda w: (X @ w.T).pow(3).mean()),
        "scalar": (torch.tensor(0.7, dtype=torch.float64), lambda X: lambda s: (s * X).sin().mean()),
        "one number": (torch.tensor([0.7], dtype=torch.float64), lambda X: lambda s: (s * X).sin().mean()),
        "requires grad": (point().requires_grad_(), lambda X: lambda w: (X @ w).sin().mean()),
        "linear": (point(), lambda X: lambda w: (X @ w).mean()),
        "mixed": (
            (point(), torch.tensor([0.5], dtype=torch.float32)),
            lambda X: lambda wb: ((X @ wb[0]).sin() * wb[1].exp()).mean(),
        ),
    }
    x, make = points[name]
    v = torch.utils._pytree.tree_map(lambda x: torch.linspace(1, 2, x.numel(), dtype=x.dtype).view(x.shape), x)
    before = torch.utils._pytree.tree_map(torch.clone, x)
    found = distributed.hvp_operator(make(X), x, samples=n)(v)
    assert gap(x, before) == 0
    expected = fd.hvp(make(everything), (x,), (v,))
    return gap(found, torch.utils._pytree.tree_map(torch.Tensor.detach, expected))


def bfloat16():
    """In half precision: how far from the product in double precision, in units of the largest entry."""
    X, _ = own("unequal")
    everything, _ = data()
    f = lambda X: lambda w: (X @ w).sin().mean()  # noqa: E731  # as short as the others
    x = point().bfloat16()
    found = distributed.hvp_operator(f(X.bfloat16()), x, samples=len(X))(x)
    expected = fd.hvp(f(everything), (point(),), (point(),))
    return found.dtype, ((found.double() - expected).abs().max() / expected.abs().max()).item()


def shared_weights():
    """A network that uses one weight twice."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    net[2].weight = net[0].weight
    predict, parameters = fd.module_function(net)
    assert len(parameters) == 3
    X, everything = own("unequal")[0], data()[0]
    v = direction(parameters)
    found = distributed.hvp_operator(tied(predict, X), parameters, samples=len(X))(v)
    return gap(found, fd.hvp(tied(predict, everything), (parameters,), (v,)))


def interleaved():
    """Two operators in turn, and a transform between."""
    x = point()
    cubes, sines = (distributed.hvp_operator(f, x) for f in (lambda x: x.pow(3).sum(), lambda x: x.sin().sum()))
    size = dist.get_world_size()
    found = []
    for _ in range(3):
        found += [gap(cubes(x), size * 6 * x * x), gap(sines(x), -size * x.sin() * x)]
        found.append(gap(distributed.jacobian(row)(x), fd.jacobian(row)(x)))
    return max(found)


def in_step():
    """Each process runs Lanczos' method by itself."""
    import numpy as np
    from scipy.sparse.linalg import LinearOperator, eigsh

    X, Y = own("unequal")
    predict, parameters = fd.module_function(network())
    w, unravel = fd.ravel(parameters)
    make = lambda X, Y: lambda w: mean_loss(predict, X, Y)(unravel(w))  # noqa: E731  # shorter than a def
    product = distributed.hvp_operator(make(X, Y), w, samples=len(X))
    calls = []

    def matvec(v):
        calls.append(1)
        return product(torch.tensor(v).reshape(len(w))).numpy()

    operator = LinearOperator((len(w), len(w)), matvec=matvec, dtype=np.float64)
    values = eigsh(operator, k=4, which="BE", v0=np.ones(len(w)), return_eigenvectors=False)
    expected = torch.linalg.eigvalsh(fd.hessian(make(*data()))(w))
    return np.sort(values).tolist(), torch.cat([expected[:2], expected[-2:]]).tolist(), len(calls)


def inside(name):
    """What is refused inside a transform."""
    operator = distributed.hvp_operator(lambda x: x.pow(3).sum(), point())
    calls = {
        "vmap": lambda: torch.func.vmap(operator)(torch.ones(2, 4, dtype=torch.float64)),
        "grad": lambda: torch.func.grad(lambda x: whole(distributed.jacobian(row)(x)).sum())(point()),
    }
    return calls[name]()


def sharded_arguments(name):
    """The recipes of one process with a DTensor: all processes compute, each with its shards."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    weight = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)
    W, x = distribute_tensor(weight, mesh, [Shard(0)]), distribute_tensor(point(), mesh, [Shard(0)])
    f = lambda W: lambda x: torch.tanh(W @ x)  # noqa: E731  # shorter than a def
    g = lambda W: lambda x: torch.tanh(W @ x).pow(3).sum()  # noqa: E731  # shorter than a def
    recipe = getattr(fd, name)
    if name.startswith("hvp_operator"):
        return gap(recipe(g(W), x)(x), recipe(g(weight), point())(point()))
    if name.startswith(("hvp", "vhp")):
        return gap(recipe(g(W), (x,), (x,)), recipe(g(weight), (point(),), (point(),)))
    make = g if name.startswith("hessian") else f
    return gap(recipe(make(W))(x), recipe(make(weight))(point()))


def fully_sharded(name):
    """With respect to the parameters of a network under fully_shard, on inputs that are sharded over their rows."""
    plain, plain_parameters = fd.module_function(network())
    net = network()
    for layer in (net[0], net[3], net):
        fully_shard(layer)
    func, parameters = fd.module_function(net)
    mesh = next(iter(parameters.values())).device_mesh
    X = data()[0]
    spread = distribute_tensor(X, mesh, [Shard(0)])
    loss = lambda p: func(p, spread).square().mean()  # noqa: E731  # shorter than a def
    plain_loss = lambda p: plain(p, X).square().mean()  # noqa: E731  # shorter than a def
    recipe = getattr(fd, name)
    if name.startswith("hvp"):
        v = direction(plain_parameters)
        along = {k: distribute_tensor(v[k], x.device_mesh, x.placements) for k, x in parameters.items()}
        return gap(recipe(loss, (parameters,), (along,)), recipe(plain_loss, (plain_parameters,), (v,)))
    one = {"0.bias": parameters["0.bias"]}
    of_one = lambda loss, rest: lambda p: loss({**rest, **p})  # noqa: E731  # shorter than a def
    expected = recipe(of_one(plain_loss, plain_parameters))({"0.bias": plain_parameters["0.bias"]})
    return gap(recipe(of_one(loss, parameters))(one), expected)
