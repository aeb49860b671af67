"""Operations on tensors of a shape of their own: products, layers, indices, matrices."""

import math

import torch
import torch.nn.functional as F
from torch import linalg


def shaped(x, c, *shape):
    """`x` in another shape: as it is where it fits, else in random combinations of its entries."""
    if tuple(x.shape) == shape:
        return x
    flat = x.reshape(-1)
    return (c(math.prod(shape), len(flat)) @ flat / len(flat) ** 0.5).reshape(shape)


def matrix(x, c, size=3):
    """A square matrix far from singular."""
    return torch.eye(size).to(x.device, x.dtype) + 0.3 * shaped(x, c, size, size)


def definite(x, c):
    """A symmetric positive definite matrix with distinct eigenvalues."""
    a = shaped(x, c, 3, 3)
    return a @ a.mT / 4 + torch.diag(torch.tensor([1.0, 2.0, 3.5])).to(x.device, x.dtype)


def rows(x, c):
    return shaped(x, c, 3, 4)


def image(x, c):
    return shaped(x, c, 1, 2, 4, 4)


def tokens(x, c):
    return shaped(x, c, 1, 3, 4)


def written(x, c):
    """Writes into a tensor of its own."""
    y = x.reshape(-1).clone()
    y[0] = x.reshape(-1)[-1].sin()
    y.mul_(1.5).add_(c(1))
    y[1:] += y[:-1].clone()
    return y.sin_().reshape(x.shape)


def attention(x, c, **options):
    q = tokens(x, c)[:, None]
    return F.scaled_dot_product_attention(q, q.sin(), q.cos(), **options)


def recurrent(x, c):
    hidden = c(4)
    for row in rows(x, c).unbind(0):
        hidden = torch.tanh(row + c(4, 4) @ hidden)
    return hidden


PRODUCTS = {
    "linear": lambda x, c: F.linear(rows(x, c), c(5, 4), c(5)),
    "matmul": lambda x, c: rows(x, c) @ c(4, 2),
    "matmul of both": lambda x, c: (r := rows(x, c)) @ r.mT,
    "bmm": lambda x, c: torch.bmm(shaped(x, c, 2, 3, 3), c(2, 3, 2)),
    "baddbmm": lambda x, c: torch.baddbmm(c(2, 3, 3), (a := shaped(x, c, 2, 3, 3)), a),
    "addmm": lambda x, c: torch.addmm(c(3, 3), (r := rows(x, c)), r.mT, beta=0.5),
    "mv": lambda x, c: torch.mv(c(3, x.numel()), x.reshape(-1)),
    "dot": lambda x, c: torch.dot((v := x.reshape(-1)), v.sin()),
    "outer": lambda x, c: torch.outer((v := x.reshape(-1)[:4]), v.cos()),
    "einsum": lambda x, c: torch.einsum("ij,jk,ik->i", (r := rows(x, c)), c(4, 4), r),
    "einsum of three": lambda x, c: torch.einsum("ij,kj,lj->kl", (r := rows(x, c)), r.sin(), c(2, 4)),
    "kron": lambda x, c: torch.kron(x.reshape(-1)[:2], x.reshape(-1).cos()[:2]),
    "tensordot": lambda x, c: torch.tensordot(rows(x, c), c(4, 3, 2), dims=([1, 0], [0, 1])),
    "cross": lambda x, c: torch.linalg.cross((a := shaped(x, c, 2, 3)), a.sin().flip(0)),
    "bilinear": lambda x, c: F.bilinear((r := rows(x, c)), r.sin(), c(2, 4, 4)),
    "multi_dot": lambda x, c: linalg.multi_dot([c(2, 3), (r := rows(x, c)), r.mT]),
}
LAYERS = {
    "layer_norm": lambda x, c: F.layer_norm(rows(x, c), (4,), c(4), c(4)),
    "layer_norm of its weight": lambda x, c: F.layer_norm((r := rows(x, c)), (4,), r[0].sin()),
    "rms_norm": lambda x, c: F.rms_norm(rows(x, c), (4,), c(4)),
    "group_norm": lambda x, c: F.group_norm(image(x, c), 2, c(2)),
    "instance_norm": lambda x, c: F.instance_norm(image(x, c)),
    "batch_norm": lambda x, c: F.batch_norm(image(x, c), c(2), c(2).square() + 1, c(2), c(2)),
    "local_response_norm": lambda x, c: F.local_response_norm(image(x, c), 2),
    "weight_norm": lambda x, c: torch._weight_norm((r := rows(x, c)), r[:, :1].sin() + 2, 0),
    "conv1d": lambda x, c: F.conv1d(rows(x, c)[None], c(2, 3, 2)),
    "conv2d": lambda x, c: F.conv2d(image(x, c), c(3, 2, 2, 2), c(3), padding=1, stride=2),
    "conv2d of its weight": lambda x, c: F.conv2d(c(1, 2, 4, 4), shaped(x, c, 1, 2, 3, 3)),
    "conv_transpose2d": lambda x, c: F.conv_transpose2d(shaped(x, c, 1, 2, 2, 2), c(2, 1, 2, 2)),
    "conv3d": lambda x, c: F.conv3d(shaped(x, c, 1, 1, 2, 3, 3), c(1, 1, 2, 2, 2)),
    "max_pool2d": lambda x, c: F.max_pool2d(image(x, c), 2).square(),
    "max_pool1d": lambda x, c: F.max_pool1d(rows(x, c)[None], 2).sin(),
    "avg_pool2d": lambda x, c: F.avg_pool2d(image(x, c).sin(), 2),
    "lp_pool2d": lambda x, c: F.lp_pool2d(image(x, c).square() + 0.2, 2.0, 2),
    "adaptive_avg_pool2d": lambda x, c: F.adaptive_avg_pool2d(image(x, c).sin(), 3),
    "adaptive_max_pool2d": lambda x, c: F.adaptive_max_pool2d(image(x, c).sin(), 2),
    "interpolate": lambda x, c: F.interpolate(image(x, c).sin(), scale_factor=2, mode="bilinear"),
    "bicubic": lambda x, c: F.interpolate(image(x, c).sin(), size=(3, 3), mode="bicubic", align_corners=False),
    "grid_sample": lambda x, c: F.grid_sample(c(1, 1, 5, 5), inside_of(shaped(x, c, 1, 2, 2, 2)), align_corners=True),
    "grid_sample of the image": lambda x, c: F.grid_sample(
        image(x, c), inside_of(c(1, 2, 2, 2)), align_corners=False
    ).sin(),
    "pad": lambda x, c: F.pad(image(x, c).sin(), (1, 1, 0, 1), mode="reflect"),
    "pixel_shuffle": lambda x, c: F.pixel_shuffle(shaped(x, c, 1, 4, 2, 2).square(), 2),
    "unfold": lambda x, c: F.unfold(image(x, c).sin(), 2),
    "attention": attention,
    "attention with a mask": lambda x, c: attention(x, c, attn_mask=torch.ones(3, 3, dtype=torch.bool).tril()),
    "causal attention": lambda x, c: attention(x, c, is_causal=True, scale=0.4),
    "multi-head attention": lambda x, c: F.multi_head_attention_forward(
        *3 * [tokens(x, c).reshape(3, 1, 4)],
        *(4, 2, c(12, 4), c(12), None, None, False, 0.0, c(4, 4), c(4)),
        need_weights=False,
    )[0],
    "embedding": lambda x, c: F.embedding(torch.tensor([0, 2, 2, 1]), rows(x, c)).sin(),
    "embedding_bag": lambda x, c: F.embedding_bag(torch.tensor([[0, 2], [1, 1]]), rows(x, c), mode="sum").sin(),
    "recurrent": recurrent,
    "gru_cell": lambda x, c: torch.gru_cell(rows(x, c), c(3, 2), c(6, 4), c(6, 2), c(6), c(6)),
    "lstm_cell": lambda x, c: torch.lstm_cell(rows(x, c), (c(3, 2), c(3, 2)), c(8, 4), c(8, 2))[0],
    "cdist": lambda x, c: torch.cdist(rows(x, c), c(2, 4)),
    "cdist, p=1": lambda x, c: torch.cdist(rows(x, c).sin(), c(2, 4), p=1.0),
    "pdist": lambda x, c: F.pdist(rows(x, c) + c(3, 4)),
    "pairwise_distance": lambda x, c: F.pairwise_distance(rows(x, c), c(3, 4), p=3.0),
    "gumbel of no noise": lambda x, c: torch.softmax((rows(x, c) + c(3, 4)) / 0.7, -1),
}


def inside_of(grid):
    return 0.8 * torch.tanh(grid)


INDICES = {
    "index": lambda x, c: x.reshape(-1)[torch.tensor([0, -1, 0])].sin(),
    "index by a mask": lambda x, c: rows(x, c)[:, torch.tensor([True, False, True, True])].square(),
    "slices": lambda x, c: rows(x, c)[1:, ::2] * rows(x, c)[:2, 1::2],
    "index_select": lambda x, c: torch.index_select(rows(x, c), 1, torch.tensor([3, 0, 0])).sin(),
    "gather": lambda x, c: rows(x, c).sin().gather(1, torch.tensor([[0, 3], [1, 1], [2, 0]])),
    "take": lambda x, c: torch.take(rows(x, c).sin(), torch.tensor([0, 5, 5])),
    "scatter": lambda x, c: c(3, 4).scatter(1, torch.tensor([[0, 3], [1, 2], [2, 0]]), rows(x, c)[:, :2].sin()),
    "scatter_add": lambda x, c: c(3, 4).scatter_add(0, torch.tensor([[0, 0, 2, 1]]), rows(x, c)[:1].square()),
    "scatter_reduce": lambda x, c: torch.scatter_reduce(
        c(3), 0, torch.tensor([0, 0, 1, 2]), rows(x, c)[0].square(), "mean"
    ),
    "index_add": lambda x, c: torch.index_add(c(3, 4), 0, torch.tensor([0, 0, 2]), rows(x, c).sin()),
    "index_copy": lambda x, c: torch.index_copy(c(3, 4), 0, torch.tensor([2, 0, 1]), rows(x, c).sin()),
    "index_put": lambda x, c: c(4, 4).index_put((torch.tensor([1, 3, 0]),), rows(x, c).sin(), accumulate=True),
    "masked_scatter": lambda x, c: c(3, 4).masked_scatter(torch.eye(3, 4, dtype=torch.bool), rows(x, c).square()),
    "written": written,
    "filled": lambda x, c: (y := x.new_zeros(3, 4)).copy_(rows(x, c)).mul_(2) + y.sin(),
    "new_zeros": lambda x, c: (y := x.new_zeros(2, 3, 4)).select(0, 1).add_(rows(x, c)) + y.square().sum(0),
    "cat": lambda x, c: torch.cat([x.reshape(-1), x.reshape(-1).square()]),
    "stack": lambda x, c: torch.stack([x.sin(), x.square()], -1),
    "split": lambda x, c: torch.mul(*rows(x, c).split(2, 1)),
    "chunk": lambda x, c: torch.add(*rows(x, c).sin().chunk(2, 1)),
    "unbind": lambda x, c: sum((i + 1) * row.square() for i, row in enumerate(rows(x, c).unbind(0))),
    "roll": lambda x, c: rows(x, c) * rows(x, c).roll(1, 1),
    "flip": lambda x, c: rows(x, c) * rows(x, c).flip(0),
    "transpose": lambda x, c: rows(x, c).T.reshape(2, 6).sin(),
    "expand": lambda x, c: (x.reshape(-1, 1) * x.reshape(-1).expand(2, -1)[:, None]).sum(1),
    "repeat": lambda x, c: x.reshape(-1).repeat(2) * c(2 * x.numel()),
    "repeat_interleave": lambda x, c: x.reshape(-1).square().repeat_interleave(2),
    "tril": lambda x, c: (r := rows(x, c)).tril() @ r.triu().mT,
    "diagonal": lambda x, c: rows(x, c).diagonal().square() + rows(x, c).sum(),
    "diag_embed": lambda x, c: torch.diag_embed(x.reshape(-1)[:3].square()),
    "block_diag": lambda x, c: torch.block_diag(x.reshape(1, -1)[:, :2], x.reshape(-1, 1)[:2].sin()),
    "meshgrid": lambda x, c: torch.mul(*torch.meshgrid(x.reshape(-1)[:3], x.reshape(-1).sin()[:3], indexing="ij")),
    "as_strided": lambda x, c: rows(x, c).contiguous().clone().as_strided((2, 2), (4, 2)).square(),
    "unfolded windows": lambda x, c: rows(x, c).unfold(1, 2, 1).prod(-1),
    "trapped in a view": lambda x, c: rows(x, c).square().view(4, 3).unsqueeze(0).squeeze(0).movedim(0, 1),
    "fft": lambda x, c: torch.fft.rfft(rows(x, c)).abs().square() if x.dtype != torch.bfloat16 else rows(x, c),
}
MATRICES = {
    "inv": lambda x, c: linalg.inv(matrix(x, c)),
    "det": lambda x, c: linalg.det(matrix(x, c)),
    "det of four rows": lambda x, c: torch.det(matrix(x, c, 4)),
    "slogdet": lambda x, c: linalg.slogdet(matrix(x, c))[1],
    "logdet": lambda x, c: torch.logdet(definite(x, c)),
    "solve": lambda x, c: linalg.solve(matrix(x, c), c(3)),
    "solve of both": lambda x, c: linalg.solve((a := matrix(x, c)), a.sin()),
    "solve of the right side": lambda x, c: linalg.solve(matrix(c(3, 3), c), shaped(x, c, 3, 2).sin()),
    "solve_triangular": lambda x, c: linalg.solve_triangular(matrix(x, c), c(3, 2), upper=True),
    "cholesky": lambda x, c: linalg.cholesky(definite(x, c)),
    "cholesky_solve": lambda x, c: torch.cholesky_solve(c(3, 2), linalg.cholesky(definite(x, c))),
    "cholesky_inverse": lambda x, c: torch.cholesky_inverse(linalg.cholesky(definite(x, c))),
    "eigvalsh": lambda x, c: linalg.eigvalsh(definite(x, c)),
    "eigh": lambda x, c: (e := linalg.eigh(definite(x, c)))[1].square() * e[0],
    "svdvals": lambda x, c: linalg.svdvals(matrix(x, c)),
    "svd": lambda x, c: (s := linalg.svd(definite(x, c)))[0].square() * s[1],
    "qr": lambda x, c: linalg.qr(matrix(x, c))[1].square(),
    "lu": lambda x, c: linalg.lu_factor(matrix(x, c))[0],
    "lu_solve": lambda x, c: linalg.lu_solve(*linalg.lu_factor(matrix(x, c)), c(3, 2)),
    "pinv": lambda x, c: linalg.pinv(rows(x, c) + torch.eye(3, 4).to(x.device, x.dtype) * 3),
    "lstsq": lambda x, c: linalg.lstsq(rows(x, c).mT + 3 * torch.eye(4, 3).to(x.device, x.dtype), c(4, 2))[0],
    "matrix_exp": lambda x, c: linalg.matrix_exp(0.5 * matrix(x, c)),
    "matrix_power": lambda x, c: linalg.matrix_power(matrix(x, c), 3),
    "matrix_norm": lambda x, c: linalg.matrix_norm(matrix(x, c)),
    "nuclear norm": lambda x, c: linalg.matrix_norm(matrix(x, c), "nuc"),
    "trace": lambda x, c: torch.trace((a := matrix(x, c)) @ a),
    "householder_product": lambda x, c: linalg.householder_product(c(3, 2).tril() + rows(x, c)[:, :2], c(2)),
}
