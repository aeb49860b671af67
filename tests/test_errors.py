"""Error measures against numbers worked out by hand."""

import math

import torch

from funcdiff.errors import error_table, near_edge, relative_error, rms, variant_table


def test_relative_error_is_signed_and_finite_at_zero():
    found = relative_error(torch.tensor([3.0, -3.0, 0.02]), torch.tensor([1.99, -1.99, 0.0]), eps=0.01)
    torch.testing.assert_close(found, torch.tensor([0.505, -0.505, 2.0]))


def test_near_edge_is_a_frame():
    x = torch.cartesian_prod(torch.tensor([-2.0, -1.5, 0.0, 1.7]), torch.tensor([-0.9, 0.0]))
    found = near_edge(x, torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 1.0]))
    assert found.tolist() == [True, True, True, False, True, False, True, True]


def test_margin_is_a_part_of_the_width():
    x = torch.tensor([[0.1], [0.3], [0.5]])
    assert near_edge(x, torch.zeros(1), torch.ones(1), margin=0.2).tolist() == [True, False, False]
    assert near_edge(10 * x, torch.zeros(1), 10 * torch.ones(1), margin=0.2).tolist() == [True, False, False]


def test_rms():
    torch.testing.assert_close(rms(torch.tensor([[3.0, 4.0]])), math.sqrt(12.5))


def test_error_table_by_region():
    exact = torch.tensor([[4.0, 4.0], [2.0, 2.0]], dtype=torch.float64)
    found = exact + torch.tensor([[0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    table = error_table({"value": (found, exact)}, {"a": torch.tensor([True, False]), "b": torch.tensor([False, True])})
    # The 99th percentile of {0, 2} lies at 99 % of the way between them.
    assert table.rows[0] == ("value", "a", "1", "1.41", "1.98", "4.00", "0.354")
    assert table.rows[1] == ("value", "b", "1", "1.00", "1.00", "2.00", "0.500")


def test_variant_table_divides_by_the_size_of_the_exact():
    exact = torch.full((3,), 10.0)
    variants = {
        name: {"value": (exact + error, exact), "first": (2 * exact, exact)} for name, error in [("a", 1), ("b", 2)]
    }
    assert variant_table(variants).rows == (("a", "0.100", "1.00"), ("b", "0.200", "1.00"))
