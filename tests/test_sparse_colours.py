"""Colours: no two columns of one colour meet, every entry can be read, and few suffice."""

import numpy as np
import pytest
import scipy.sparse
import torch
from sparse_problems import JACOBIANS, heat, messages

import funcdiff as fd
from funcdiff._sparse import colouring
from funcdiff._sparse.pattern import Pattern


@pytest.mark.parametrize("func", [heat, messages])
def test_colours_do_not_meet(func):
    pattern = fd.jacobian_pattern(func, JACOBIANS[func][0])
    for groups in pattern.ways:
        assert groups.places.max() < groups.forward * pattern.shape[0] + groups.reverse * pattern.shape[1]
        if groups.reverse == 0:
            met = {(groups.columns[j], i) for i, j in zip(pattern.rows, pattern.columns, strict=True)}
            assert len(met) == pattern.nnz


def test_stars_on_random_graphs():
    """Values of a random symmetric matrix are read back from its products."""
    for seed in range(30):
        numbers = np.random.default_rng(seed)
        matrix = np.triu(numbers.random((15, 15)) * (numbers.random((15, 15)) < 0.2))
        matrix = matrix + matrix.T
        pattern = Pattern.of_matrix(scipy.sparse.csr_array(matrix)).only_mutual()
        (groups,) = pattern.ways
        seeds = (groups.columns == np.arange(groups.forward)[:, None]).astype(float)
        read = (seeds @ matrix).ravel()[groups.places]
        np.testing.assert_allclose(read, matrix[pattern.rows, pattern.columns])


def test_the_smallest_are_coloured_last_where_it_pays():
    """Of two kinds of unknowns, few that meet many and many that meet few, as in bundle adjustment."""
    few, many = 8, 60
    meeting = (np.arange(many)[:, None] * 3 + np.arange(3)) % few
    matrix = np.eye(few + many)
    for point, cameras in enumerate(meeting):
        matrix[few + point, cameras] = matrix[cameras, few + point] = 1
    matrix = np.kron(matrix, np.ones((3, 3)))
    for order in (slice(None), slice(None, None, -1)):
        pattern = Pattern.of_matrix(torch.from_numpy(matrix[order, order].copy())).only_mutual()
        assert pattern.passes <= 18
    natural = Pattern.of_matrix(torch.from_numpy(matrix)).only_mutual()
    starts, neighbours = natural.starts.tolist(), natural.columns.tolist()
    assert colouring._star_in_order(range(len(matrix)), starts, neighbours)[0].max() > 50
