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
