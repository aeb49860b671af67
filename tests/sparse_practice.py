"""Functions as people write them in practice: grids, meshes, graphs, filters, trajectories, networks."""

import torch
from sparse_problems import random_point
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
TRIANGLES = torch.tensor([[0, 1, 4], [1, 5, 4], [1, 2, 5], [2, 6, 5], [2, 3, 6], [3, 7, 6]])
AREAS = torch.linspace(0.5, 1, 6, dtype=torch.float64)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 1], [1, 2, 3, 4, 0, 4]])
LAPLACIAN = torch.sparse_coo_tensor(
    torch.cat([EDGES, EDGES.flip(0), torch.arange(5).expand(2, 5)], 1),
    torch.cat([-torch.ones(12, dtype=torch.float64), torch.tensor([2.0, 3, 2, 2, 3], dtype=torch.float64)]),
    (5, 5),
    check_invariants=True,
).coalesce()
CAMERAS, POINTS = torch.tensor([0, 0, 1, 1, 2, 2, 0]), torch.tensor([0, 1, 1, 2, 2, 3, 3])
MEASURED = random_point(7, 2, seed=5)
KNOTS = torch.linspace(0, 1, 6, dtype=torch.float64)
LAYERS = nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)
ROWS_NETWORK = nn.Sequential(*LAYERS).double().requires_grad_(False)
CELL = nn.GRUCell(2, 3).double().requires_grad_(False)
CONVOLUTIONS = {
    "dilated": nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2).double().requires_grad_(False),
    "strided": nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2).double().requires_grad_(False),
    "depthwise": nn.Conv2d(2, 2, 3, padding="same", groups=2).double().requires_grad_(False),
    "reflected": nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect", groups=2).double().requires_grad_(False),
    "circular": nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular", groups=2).double().requires_grad_(False),
    "transposed": nn.ConvTranspose2d(2, 4, 2, stride=2, groups=2).double().requires_grad_(False),
}


def finite_volumes(q):
    """Shallow water on a ring by Rusanov's fluxes, (2, N)."""
    h, m = q
    flux = torch.stack([m, m * m / h + 4.9 * h * h])
    speed = (m / h).abs() + (9.8 * h).sqrt()
    across = 0.5 * (flux + flux.roll(-1, 1)) - 0.5 * torch.maximum(speed, speed.roll(-1)) * (q.roll(-1, 1) - q)
    return across.roll(1, 1) - across


def upwind(u):
    """Minmod slopes on a ring."""
    left, right = u - u.roll(1), u.roll(-1) - u
    slope = torch.where(left * right > 0, torch.where(left.abs() < right.abs(), left, right), torch.zeros_like(u))
    face = u + 0.5 * slope
    return face - face.roll(1)


def elements_by_index_add(u):
    """Forces of nonlinear triangles."""
    local = u[TRIANGLES]
    force = (local - local.mean(1, keepdim=True)) * (1 + local.square().sum(1, keepdim=True)) * AREAS[:, None]
    return torch.zeros_like(u).index_add(0, TRIANGLES.reshape(-1), force.reshape(-1))


def elements_by_scatter(u):
    """The same, one corner after the other."""
    total = torch.zeros_like(u)
    for corner in range(3):
        values = u[TRIANGLES[:, corner]] * u[TRIANGLES].prod(1)
        total = total.scatter_add(0, TRIANGLES[:, corner], values)
    return total


def elements_with_gradients(u):
    """Forces as the gradient of the elements' energies, by vmap."""
    energy = lambda local: (local.square().sum() + local.prod()).exp()  # noqa: E731  # shorter than its use
    forces = torch.func.vmap(torch.func.grad(energy))(u[TRIANGLES])
    return torch.zeros_like(u).index_put((TRIANGLES,), forces, accumulate=True)


def graph_diffusion(u):
    return -torch.sparse.mm(LAPLACIAN, u[:, None].sinh())[:, 0] + u * (1 - u)


def graph_diffusion_compressed(u):
    return -(LAPLACIAN.to_sparse_csr() @ u.sinh()) + u * (1 - u)


def smoother(z):
    """The negative log-density of a chain of states with their observations, (T, 2)."""
    step = torch.tensor([[1.0, 0.1], [-0.1, 0.9]], dtype=z.dtype)
    innovation = z[1:] - z[:-1] @ step.T - 0.05 * z[:-1].sin()
    observed = z[:, 0] - KNOTS[: len(z)]
    return 5 * innovation.square().sum() + (1 + observed.square()).log().sum()


def kalman(log_noise):
    """The log-likelihood of a scalar Kalman filter by its noises: each step depends on all before."""
    mean, variance, total = torch.zeros((), dtype=log_noise.dtype), torch.ones((), dtype=log_noise.dtype), 0.0
    for i, noise in enumerate(log_noise.exp()):
        variance = variance + 0.1
        spread = variance + noise
        error = KNOTS[i % 6] - mean
        total = total + spread.log() + error**2 / spread
        mean, variance = mean + variance / spread * error, variance * noise / spread
    return total


def collocation(x):
    """Hermite-Simpson defects of a pendulum, controls included, (T, 3)."""
    state, control = x[:, :2], x[:, 2:]
    rate = lambda s, u: torch.stack([s[:, 1], -s[:, 0].sin() + u[:, 0]], 1)  # noqa: E731  # shorter than its uses
    here, there = rate(state[:-1], control[:-1]), rate(state[1:], control[1:])
    middle = 0.5 * (state[:-1] + state[1:]) + 0.0125 * (here - there)
    between = rate(middle, 0.5 * (control[:-1] + control[1:]))
    defects = state[1:] - state[:-1] - 0.1 / 6 * (here + 4 * between + there)
    return torch.cat([defects.reshape(-1), state[0] - 1, state[-1]])


def batched_network(x):
    return ROWS_NETWORK(x)


def dae(z):
    """A chain of pendulums in Cartesian coordinates with multipliers: residuals of (N, 5) unknowns."""
    x, y, vx, vy, force = z.T
    return torch.stack([vx - x.sin(), vy - y, -force * x + 0.1 * vx.roll(1), -force * y - 9.8, x**2 + y**2 - 1], 1)


def bundle_adjustment(cameras, points):
    """Reprojection errors: few cameras (3, 5), many points (4, 3)."""
    angle, place = cameras[CAMERAS, :2], points[POINTS]
    turned = place + torch.linalg.cross(F.pad(angle, (0, 1)), place)
    moved = turned + cameras[CAMERAS, 2:5]
    return (moved[:, :2] / (2 + moved[:, 2:]) - MEASURED).reshape(-1)


def bundle_adjustment_rotated(cameras, points):
    """The same by matrices of rotation for each camera."""
    a = F.pad(cameras[:, :2], (0, 1))
    zero = torch.zeros_like(a[:, 0])
    skew = torch.stack([zero, -a[:, 2], a[:, 1], a[:, 2], zero, -a[:, 0], -a[:, 1], a[:, 0], zero], 1).reshape(-1, 3, 3)
    turned = (torch.linalg.matrix_exp(skew)[CAMERAS] @ points[POINTS, :, None])[..., 0]
    return ((turned + cameras[CAMERAS, 2:5])[:, :2] - MEASURED).reshape(-1)


def convolution(name):
    return lambda x: CONVOLUTIONS[name](x).tanh()


def patches(x):
    """Patches taken apart, weighed and put together."""
    columns = F.unfold(x, 2, stride=2)
    return F.fold(columns * columns.roll(1, 1), x.shape[-2:], 2, stride=2)


def interpolated(x):
    """Linear interpolation: the piece is found by searchsorted."""
    values = KNOTS.sin()
    i = torch.searchsorted(KNOTS, x.detach().clamp(0.01, 0.99)).clamp(1, 5)
    t = (x - KNOTS[i - 1]) / (KNOTS[i] - KNOTS[i - 1])
    return torch.lerp(values[i - 1], values[i], t)


def interpolated_table(table):
    """The same by the values at the knots, at places that the function reads from them."""
    x = table.detach().sigmoid()
    i = torch.searchsorted(KNOTS, x.clamp(0.01, 0.99)).clamp(1, 5)
    return table[i] * x + table[i - 1] * (1 - x)


def spline(u):
    """A tridiagonal solve by Thomas' algorithm in a loop: dense, said so."""
    c, d = [torch.zeros((), dtype=u.dtype)], [u[0]]
    for i in range(1, len(u)):
        w = 4 - c[-1]
        c.append(1 / w)
        d.append((u[i] - d[-1]) / w)
    return torch.stack(d)


def markets(x):
    """Excess demands: ratios with totals over groups."""
    totals = torch.zeros(2, dtype=x.dtype).index_add(0, torch.tensor([0, 1, 0, 1, 0, 1]), x.exp())
    return x.exp() / totals[torch.tensor([0, 1, 0, 1, 0, 1])]


def total_variation(u):
    return ((u[1:, :-1] - u[:-1, :-1]).square() + (u[:-1, 1:] - u[:-1, :-1]).square() + 0.01).sqrt().sum()


def lennard_jones(x):
    """Energies of pairs of neighbours that a list names, (6, 2)."""
    pairs = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    r2 = (x[pairs[0]] - x[pairs[1]]).square().sum(1) + 0.5
    return (r2**-6 - 2 * r2**-3).sum()


def logistic_penalized(w):
    return F.softplus(-w * KNOTS).sum() + 0.1 * (w[1:] - w[:-1]).square().sum()


def mixed(x, y):
    """Blocks: two arguments that meet element by element."""
    return (x.square() * y.exp()).sum() + x.prod(1).sum()


IMAGE = random_point(1, 2, 5, 5)
JACOBIANS = {
    "finite volumes": (finite_volumes, (random_point(2, 7),)),
    "upwind": (upwind, (random_point(8),)),
    "elements by index_add": (elements_by_index_add, (random_point(8),)),
    "elements by scatter": (elements_by_scatter, (random_point(8),)),
    "elements with gradients": (elements_with_gradients, (random_point(8),)),
    "graph diffusion": (graph_diffusion, (random_point(5),)),
    "graph diffusion, compressed": (graph_diffusion_compressed, (random_point(5),)),
    "collocation": (collocation, (random_point(6, 3),)),
    "batched network": (batched_network, (random_point(4, 3),)),
    "algebraic equations": (dae, (random_point(4, 5),)),
    "bundle adjustment": (bundle_adjustment, (random_point(3, 5), random_point(4, 3, seed=1))),
    "bundle adjustment, rotated": (bundle_adjustment_rotated, (random_point(3, 5), random_point(4, 3, seed=1))),
    **{f"convolution, {name}": (convolution(name), (IMAGE,)) for name in CONVOLUTIONS},
    "average pooling": (lambda x: F.avg_pool2d(x, 3, 2, padding=1), (IMAGE,)),
    "average pooling, ceil": (lambda x: F.avg_pool2d(x, 2, ceil_mode=True), (IMAGE,)),
    "adaptive pooling": (lambda x: F.adaptive_avg_pool2d(x, 2), (IMAGE,)),
    "max pooling": (lambda x: F.max_pool2d(x, 2), (IMAGE,)),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (IMAGE,)),
    "fft": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.arange(5)), (random_point(8),)),
    "spectral rows": (lambda x: torch.fft.rfft(x, dim=1).abs(), (random_point(3, 4),)),
    "patches": (patches, (random_point(1, 2, 4, 4),)),
    "cumsum": (lambda x: x.cumsum(0).sin(), (random_point(6),)),
    "searchsorted": (interpolated, (random_point(5),)),
    "searchsorted of a table": (interpolated_table, (random_point(6),)),
    "thomas": (spline, (random_point(5),)),
    "groups": (markets, (random_point(6),)),
    "embedding bag": (lambda w: F.embedding_bag(TRIANGLES, w, mode="mean"), (random_point(8, 2),)),
    "gru": (CELL, (random_point(4, 2),)),
    "batch norm": (lambda x: F.batch_norm(x, None, None, training=True), (random_point(4, 3),)),
    "group norm": (lambda x: F.group_norm(x, 2), (random_point(2, 4, 3),)),
    "einsum": (lambda x: torch.einsum("bi,bj->bij", x, x.sin()), (random_point(3, 2),)),
    "complex": (lambda x: torch.view_as_real(torch.polar(x, x.roll(1))), (random_point(5),)),
    "tensordot": (lambda x: torch.tensordot(x, torch.eye(3, dtype=x.dtype), 1), (random_point(4, 3),)),
    "where": (lambda x: torch.where(x > 0.7, x.sin() * x.roll(1), x.roll(2)), (random_point(8),)),
    "solve of blocks": (
        lambda a: torch.linalg.solve(a.reshape(3, 2, 2) + 3 * torch.eye(2), torch.ones(3, 2, dtype=a.dtype)),
        (random_point(12),),
    ),
    "map": (lambda x: torch.func.vmap(lambda r: r.sin() * r.sum())(x), (random_point(4, 3),)),
    "checkpoint": (
        lambda x: torch.utils.checkpoint.checkpoint(lambda y: y.sin() * y.roll(1), x, use_reentrant=False),
        (random_point(6),),
    ),
}
HESSIANS = {
    "smoother": (smoother, (random_point(6, 2),)),
    "kalman": (kalman, (random_point(5),)),
    "total variation": (total_variation, (random_point(4, 5),)),
    "lennard-jones": (lennard_jones, (random_point(6, 2),)),
    "penalized logistic": (logistic_penalized, (random_point(6),)),
    "two arguments": (mixed, (random_point(4, 2), random_point(4, 2, seed=1))),
    "squared residuals": (lambda q: finite_volumes(q).square().sum(), (random_point(2, 7),)),
    "squared reprojections": (
        lambda c, p: bundle_adjustment(c, p).square().sum(),
        (random_point(3, 5), random_point(4, 3, seed=1)),
    ),
    "convolution energy": (lambda x: convolution("dilated")(x).square().sum(), (IMAGE,)),
    "network energy": (lambda x: batched_network(x).square().sum(), (random_point(4, 3),)),
    "pooled energy": (lambda x: F.avg_pool2d(x, 3, 2, padding=1).exp().sum(), (IMAGE,)),
    "patches energy": (lambda x: patches(x).square().sum(), (random_point(1, 2, 4, 4),)),
    "graph energy": (lambda u: u @ (LAPLACIAN @ u) + u.exp().sum(), (random_point(5),)),
}
