"""The entries of a sparse Jacobian or Hessian, from one product for each colour of its columns or rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._calling.directions import Seeds, pulled, pushed
from funcdiff._calling.options import Options
from funcdiff._calling.plain import plain_vjp
from funcdiff._calling.point import Scalar
from funcdiff._calling.types import Derivative, Flat, Primals
from funcdiff._sparse.colouring import Groups
from funcdiff._torch.transforms import jvp
from funcdiff._torch.trees import Tree, flatten
from funcdiff.recipes.products import curvature, gradient


def jacobian_values(flat: Flat, primals: Primals, groups: Groups, options: Options) -> Derivative:
    """The entries, in the order of the pattern: a forward pass a colour of columns, a reverse pass a colour of rows."""
    columns, rows, places = groups.on(primals[0].device)
    products: list[Tensor] = []
    aux: Sequence[Tree] = ()
    if groups.forward or not groups.reverse:  # nothing to compute is computed once, for the aux

        def push(*tangents: Tensor) -> tuple[Tree, ...]:
            return jvp(flat, primals, tangents, has_aux=options.has_aux)[1:]  # the slope and the aux

        stacks, *aux = pushed(push, seeds(columns, primals), groups.forward, options)
        products.append(joined(stacks))
    if groups.reverse:
        output, pull, *aux = plain_vjp(flat, *primals, has_aux=options.has_aux)
        outputs = flatten(output)[0]
        products.append(joined(pulled(pull, output, seeds(rows, outputs), groups.reverse, options)))
    whole = torch.cat([product.reshape(-1) for product in products]) if len(products) > 1 else products[0].reshape(-1)
    return whole.index_select(0, places), *aux


def hessian_values(flat: Scalar, primals: Primals, groups: Groups, options: Options) -> Tensor:
    """The entries, in the order of the pattern: a Hessian-vector product a colour, by two backward passes."""
    return _products(curvature(flat, primals), primals, groups, options)


def hessian_values_forward(flat: Scalar, primals: Primals, groups: Groups, options: Options) -> Tensor:
    """The same by forward over reverse mode."""
    return _products(lambda v: jvp(gradient(flat), primals, v)[1], primals, groups, options)


def _products(
    product: Callable[[Primals], Sequence[Tensor]], primals: Primals, groups: Groups, options: Options
) -> Tensor:
    columns, _, places = groups.on(primals[0].device)
    stacks = pulled(product, primals, seeds(columns, primals), groups.forward, options)
    return joined(stacks).reshape(-1).index_select(0, places)


def seeds(colours: Tensor, like: Sequence[Tensor]) -> Seeds:
    """For each colour the sum of the basis vectors that have it, in the shapes of `like`."""
    parts = torch.split(colours, [leaf.numel() for leaf in like])

    def some(start: int, stop: int) -> list[Tensor]:
        wanted = torch.arange(start, stop, device=colours.device)[:, None]
        pairs = zip(parts, like, strict=True)
        return [(part == wanted).to(leaf.dtype).reshape(stop - start, *leaf.shape) for part, leaf in pairs]

    return some


def joined(stacks: Sequence[Tensor]) -> Tensor:
    """Stacks of tensors as one stack of vectors."""
    vectors = [stack.flatten(1) if stack.dim() > 1 else stack[:, None] for stack in stacks]
    return torch.cat(vectors, 1) if len(vectors) > 1 else vectors[0]
