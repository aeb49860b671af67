"""Functions with sparse Jacobians and Hessians, of known numbers of passes, and random compositions of operations."""

import random

import torch
from torch.nn import functional as F

import funcdiff  # noqa: F401  # takes torch's warning about compressed rows, said once in a process

STENCIL = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
SENDERS = torch.tensor([0, 1, 2, 3, 4, 5, 0, 3])
RECEIVERS = torch.tensor([1, 2, 3, 4, 5, 0, 3, 0])
NETWORK = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
NETWORK.requires_grad_(False)
LSTM = torch.nn.LSTM(2, 3, batch_first=True).double().requires_grad_(False)
KERNELS = torch.linspace(-1, 1, 36, dtype=torch.float64).reshape(2, 2, 3, 3)


def laplacian(u):
    return u.roll(1, 0) + u.roll(-1, 0) + u.roll(1, 1) + u.roll(-1, 1) - 4 * u


def brusselator(y):
    """Reaction and diffusion of two substances on a torus, (2, N, N)."""
    u, v = y
    return torch.stack([1 + u * u * v - 4.4 * u + 0.1 * laplacian(u), 3.4 * u - u * u * v + 0.1 * laplacian(v)])


def chain(x):
    return x[1:] * x[:-1].sin()


def heat(u):
    return F.conv2d(u[None, None], STENCIL[None, None], padding=1)[0, 0]


def messages(h):
    return torch.zeros_like(h).scatter_add(0, RECEIVERS, (h[SENDERS] - h[RECEIVERS]).sin())


def last_row_full(x):
    return torch.cat([x[:-1] ** 2, x.sum().sin()[None]])


def first_column_full(x):
    return x[1:] * x[0]


def both_full(x):
    return torch.cat([x[:-1] * x[-1], x.exp().sum()[None]])


def written_in_place(x):
    y = torch.zeros_like(x)
    y[1:] = x[:-1] ** 2
    y[::2].mul_(x[::2].cos())
    y.view(-1)[0] += x[3]
    return y


MATRIX = torch.diag(torch.ones(6, dtype=torch.float64)) + torch.diag(2 * torch.ones(5, dtype=torch.float64), 1)
COMPRESSED = MATRIX.to_sparse_csr()
COORDINATES = MATRIX.to_sparse()


def by_compressed_rows(x):
    return COMPRESSED @ x.sin()


def by_coordinates(x):
    return torch.sparse.mm(COORDINATES, x[:, None].sin())[:, 0]


def by_dense_matrix(x):
    return MATRIX @ x.sin()


def attention(x):
    return F.scaled_dot_product_attention(x, x, 2 * x)


def recurrent(x):
    return LSTM(x)[0]


def partly_single(x):
    return x.float().sin().double() * x.roll(1)


def gradients_inside(x):
    return torch.func.vmap(torch.func.grad(lambda t: (t**3).tanh()))(x) * x.roll(1)


def in_a_loop(x):
    y = torch.zeros_like(x)
    for i in range(len(x)):
        y[i] = x[i] * x[i - 1] ** 2
    return y


def images(x):
    return F.max_pool2d(F.conv2d(x, KERNELS, stride=1, padding=1), 2)


def rows_of_network(x):
    return NETWORK(x)


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def wide_band(x):
    return (x[2:] * x[1:-1] * x[:-2]).exp().sum()


def arrow(x):
    return (x[:-1] ** 2 * x[-1]).sum() + (x[:-1].sin()).sum()


def arrow_from_the_front(x):
    return (x[1:] ** 3 * x[0]).sum()


def separable(x):
    return (x**4).sum()


def energy_of_springs(x):
    return ((x[SENDERS] - x[RECEIVERS]) ** 4).sum()


def random_point(*shape, seed=0):
    return 0.2 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


JACOBIANS = {  # the function, a point, and the passes that suffice
    brusselator: (random_point(2, 6, 6), 12),
    chain: (random_point(9), 2),
    heat: (random_point(7, 8), 8),
    messages: (random_point(6), 5),
    last_row_full: (random_point(20), 2),
    first_column_full: (random_point(20), 2),
    both_full: (random_point(20), 3),
    written_in_place: (random_point(8), 3),
    rows_of_network: (random_point(5, 3), 2),
    by_compressed_rows: (random_point(6), 2),
    by_coordinates: (random_point(6), 2),
    by_dense_matrix: (random_point(6), 2),
    attention: (random_point(2, 1, 3, 2), 6),
    recurrent: (random_point(2, 3, 2), 6),
    partly_single: (random_point(6), 2),
    gradients_inside: (random_point(6), 2),
    in_a_loop: (random_point(6), 2),
    images: (random_point(2, 2, 4, 4), 32),
    torch.sin: (random_point(2, 3), 1),
    torch.cumsum: (random_point(6), 6),
}
JACOBIANS[lambda x: x.cumsum(0)] = JACOBIANS.pop(torch.cumsum)
HESSIANS = {
    rosenbrock: (random_point(9), 3),
    wide_band: (random_point(10), 5),
    arrow: (random_point(20), 2),
    arrow_from_the_front: (random_point(20), 2),
    separable: (random_point(6), 1),
    energy_of_springs: (random_point(6), 6),
}


# Random compositions. A step takes a matrix (R, C) and a source of random numbers, and returns a matrix.


def _axis(draw):
    return draw.randrange(2)


def _permutation(draw, size):
    return torch.tensor(draw.sample(range(size), size))


def _index(draw, size):
    return torch.tensor([draw.randrange(size) for _ in range(size)])


def _matrix(draw, rows, columns, zeros=False):
    entries = [
        [0.0 if zeros and draw.random() < 0.6 else draw.uniform(-1, 1) for _ in range(columns)] for _ in range(rows)
    ]
    return torch.tensor(entries, dtype=torch.float64)


def _written(x, draw):
    y = x.clone()
    y[draw.randrange(len(x))] = x[draw.randrange(len(x))] * 0.5
    y[:, ::2].sin_()
    y.t()[0].add_(x[:, -1])
    return y


def _scattered(x, draw):
    return torch.zeros_like(x).index_add(0, _index(draw, len(x)), x)


STEPS = {
    "sin": lambda x, draw: x.sin(),
    "cos": lambda x, draw: x.cos(),
    "tanh": lambda x, draw: x.tanh(),
    "sigmoid": lambda x, draw: x.sigmoid(),
    "exp": lambda x, draw: (0.3 * x).tanh().exp(),
    "softplus": lambda x, draw: F.softplus(x),
    "gelu": lambda x, draw: F.gelu(x),
    "silu": lambda x, draw: F.silu(x),
    "elu": lambda x, draw: F.elu(x),
    "relu": lambda x, draw: x.relu(),
    "leaky_relu": lambda x, draw: F.leaky_relu(x),
    "abs": lambda x, draw: x.abs(),
    "square": lambda x, draw: x.square().tanh(),
    "reciprocal": lambda x, draw: (2 + x.tanh()).reciprocal(),
    "sqrt": lambda x, draw: (2 + x.tanh()).sqrt(),
    "log": lambda x, draw: (2 + x.tanh()).log(),
    "atan": lambda x, draw: x.atan(),
    "erf": lambda x, draw: x.erf(),
    "pow": lambda x, draw: x.tanh().pow(draw.choice([2, 3])),
    "clamp": lambda x, draw: x.clamp(-0.5, 0.5),
    "neg": lambda x, draw: -x,
    "roll": lambda x, draw: x.roll(draw.randrange(3), _axis(draw)),
    "flip": lambda x, draw: x.flip(_axis(draw)),
    "transpose": lambda x, draw: x.t(),
    "select": lambda x, draw: x * x.select(_axis(draw), 0).sum() if x.numel() < 8 else x + x[:, :1],
    "narrow": lambda x, draw: x[1:] if len(x) > 2 else x,
    "strided": lambda x, draw: x[:, ::2] if x.shape[1] > 3 else x,
    "reversed sum": lambda x, draw: x + x.flip(0),
    "neighbours": lambda x, draw: x - x.roll(1, 0),
    "products": lambda x, draw: x * x.roll(1, _axis(draw)),
    "ratio": lambda x, draw: x / (2 + x.roll(1, 0).square()),
    "cat": lambda x, draw: torch.cat([x, x[:1] * 2]) if len(x) < 6 else x,
    "stack": lambda x, draw: torch.stack([x.sin(), x.roll(1, 0)]).sum(0),
    "pad": lambda x, draw: F.pad(x, (1, 0)) if x.shape[1] < 6 else x,
    "reflect": lambda x, draw: F.pad(x[None], (1, 1), mode="reflect")[0, :, 1:-1] if x.shape[1] > 2 else x,
    "replicate": lambda x, draw: F.pad(x[None], (1, 1), mode="replicate")[0, :, :-2] if x.shape[1] > 2 else x,
    "repeat": lambda x, draw: x.repeat(2, 1)[: len(x) + 1] if len(x) < 6 else x,
    "index": lambda x, draw: x[_permutation(draw, len(x))],
    "index_select": lambda x, draw: x.index_select(1, _index(draw, x.shape[1])),
    "gather": lambda x, draw: x.gather(0, _index(draw, x.shape[0])[:, None].expand(-1, x.shape[1])),
    "take_along_dim": lambda x, draw: x.take_along_dim(_index(draw, x.shape[1])[None], 1),
    "index_add": _scattered,
    "scatter": lambda x, draw: x.scatter(0, torch.zeros(1, x.shape[1], dtype=torch.long), x[-1:].cos()),
    "scatter_add": lambda x, draw: x.scatter_add(0, torch.zeros(1, x.shape[1], dtype=torch.long), x[-1:].cos()),
    "index_put": lambda x, draw: x.index_put((torch.tensor([0, 0]),), x[-1:].sin(), accumulate=True),
    "masked_fill": lambda x, draw: x.masked_fill(torch.eye(*x.shape, dtype=torch.bool), 0.0),
    "where": lambda x, draw: torch.where(x > 0, x.sin(), x.roll(1, 0)),
    "where fixed": lambda x, draw: torch.where(torch.eye(*x.shape, dtype=torch.bool), x, x.flip(0)),
    "tril": lambda x, draw: x.tril() if draw.random() < 0.3 else x,
    "triu": lambda x, draw: x.triu(-1),
    "in place": _written,
    "sum": lambda x, draw: x + x.sum(_axis(draw), keepdim=True) if draw.random() < 0.3 else x,
    "mean": lambda x, draw: x.mean(1, keepdim=True) * torch.ones(1, 3, dtype=x.dtype) if draw.random() < 0.2 else x,
    "amax": lambda x, draw: x.amax(1, keepdim=True) - x[:, :1],
    "prod": lambda x, draw: x + x[:, :2].prod(1, keepdim=True),
    "logsumexp": lambda x, draw: x[:, :2].logsumexp(1, keepdim=True) + x,
    "var": lambda x, draw: x + x.var(1, keepdim=True) if x.shape[1] > 2 else x,
    "cumsum": lambda x, draw: x.cumsum(_axis(draw)) if draw.random() < 0.3 else x,
    "cumprod": lambda x, draw: x.tanh().cumprod(1),
    "softmax": lambda x, draw: x.softmax(1),
    "log_softmax": lambda x, draw: x.log_softmax(1),
    "sort": lambda x, draw: x.sort(1)[0],
    "topk": lambda x, draw: x.topk(min(2, x.shape[1]), 1)[0] if draw.random() < 0.3 else x,
    "matmul": lambda x, draw: x @ _matrix(draw, x.shape[1], min(x.shape[1], 4)),
    "sparse matmul": lambda x, draw: _matrix(draw, len(x), len(x), zeros=True) @ x,
    "mv": lambda x, draw: x + (x @ _matrix(draw, x.shape[1], 1)).squeeze(1)[:, None],
    "gram": lambda x, draw: x @ x.t() if x.numel() < 13 else x,
    "bmm": lambda x, draw: torch.bmm(x[:, None, :], x[:, :, None]).squeeze(2) + x,
    "linear": lambda x, draw: F.linear(x, _matrix(draw, 3, x.shape[1]), torch.ones(3, dtype=x.dtype)),
    "einsum": lambda x, draw: torch.einsum("ij,ij->i", x, x)[:, None] * 0.1 + x,
    "outer": lambda x, draw: x[:, :1] * x[:1] + x,
    "conv1d": lambda x, draw: F.conv1d(x[None], _matrix(draw, len(x), 3)[:, None], padding=1, groups=len(x))[0],
    "conv1d mixing": lambda x, draw: F.conv1d(x[:, None], _matrix(draw, 1, 3)[None], padding=1)[:, 0],
    "conv2d": lambda x, draw: F.conv2d(x[None, None], STENCIL[None, None], padding=1)[0, 0],
    "conv_transpose": lambda x, draw: F.conv_transpose1d(x[:, None], _matrix(draw, 1, 2)[None], stride=1)[:, 0, :5],
    "avg_pool": lambda x, draw: F.avg_pool2d(x[None], 2, 1)[0] if min(x.shape) > 2 else x,
    "max_pool": lambda x, draw: F.max_pool2d(x[None], 2, 1)[0] if min(x.shape) > 2 else x,
    "unfold": lambda x, draw: x.unfold(1, 2, 1).sum(-1) if x.shape[1] > 2 else x,
    "layer_norm": lambda x, draw: F.layer_norm(x, x.shape[1:]) if x.shape[1] > 2 else x,
    "lerp": lambda x, draw: x.lerp(x.roll(1, 0), 0.3),
    "addcmul": lambda x, draw: x.addcmul(x.sin(), x.roll(1, 1), value=0.5),
    "maximum": lambda x, draw: torch.maximum(x, x.roll(1, 0)),
    "hypot": lambda x, draw: torch.hypot(x + 3, x.roll(1, 1)),
    "atan2": lambda x, draw: torch.atan2(x, 2 + x.roll(1, 0).square()),
    "diff": lambda x, draw: x.diff(dim=0) if len(x) > 2 else x,
    "kron": lambda x, draw: torch.kron(x[:2, :2], torch.eye(2, dtype=x.dtype)) if draw.random() < 0.3 else x,
    "complex": lambda x, draw: torch.view_as_real(torch.complex(x, x.sin()) * 1j).sum(-1),
    "fft": lambda x, draw: torch.fft.fft(x, dim=1).abs() if draw.random() < 0.2 else x,
    "detached": lambda x, draw: x * x.detach().roll(1, 0),
    "reshaped": lambda x, draw: x.reshape(x.shape[1], x.shape[0]),
    "argsort": lambda x, draw: x.gather(1, x.argsort(1)) if draw.random() < 0.3 else x,
    "nan_to_num": lambda x, draw: x.nan_to_num(),
    "checkerboard": lambda x, draw: x * (torch.arange(x.shape[1]) % 2),
}


def composition(seed, *, length=6):
    """A random function of a vector, to a vector; the names of its steps; and a point."""
    draw = random.Random(seed)
    names = [draw.choice(list(STEPS)) for _ in range(draw.randrange(2, length + 1))]
    rows, columns, seeds = draw.randrange(2, 5), draw.randrange(2, 5), [draw.random() for _ in names]

    def func(v):
        x = v.reshape(rows, columns)
        for name, own in zip(names, seeds, strict=True):
            x = STEPS[name](x, random.Random(own))
        return x.reshape(-1)

    return func, names, random_point(rows * columns, seed=seed) - 0.6
