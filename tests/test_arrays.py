"""NumPy in, NumPy out: dtypes, devices, memory and refusals."""

import numpy as np
import pytest
import torch
from torch import nn

from funcdiff import batch_hessian, batch_jacobian, jacobian_forward
from funcdiff.arrays import numpy_function
from funcdiff.problems import surface, surface_hessian, surface_jacobian


def test_derivatives_of_a_known_function_in_float64():
    x = np.random.default_rng(0).uniform(-1, 1, (7, 2))
    tensor = torch.from_numpy(x)
    np.testing.assert_allclose(numpy_function(surface)(x), surface(tensor), rtol=0, atol=1e-14)
    np.testing.assert_allclose(numpy_function(batch_jacobian(surface))(x), surface_jacobian(tensor), rtol=0, atol=1e-12)
    np.testing.assert_allclose(numpy_function(batch_hessian(surface))(x), surface_hessian(tensor), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_says_its_dtype(dtype):
    layer = nn.Linear(2, 1, dtype=dtype)
    found = numpy_function(layer)(np.array([[1.0, 2.0]]))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.dtype(str(dtype).removeprefix("torch."))
    np.testing.assert_allclose(found, layer(torch.tensor([[1.0, 2.0]], dtype=dtype)).detach())


def test_a_stated_dtype_converts_floats_and_leaves_integers():
    seen = []
    numpy_function(lambda x, i: seen.append((x.dtype, i.dtype)) or x, dtype=torch.float32)(np.ones(2), np.arange(2))
    assert seen == [(torch.float32, torch.int64)]


def test_numbers_and_lists_and_tensors_are_taken_too():
    double = numpy_function(lambda x: 2 * x)
    assert double(3.0) == 6.0
    np.testing.assert_array_equal(double([1.0, 2.0]), [2.0, 4.0])
    np.testing.assert_array_equal(double(torch.ones(2)), [2.0, 2.0])


def test_memory_is_shared_where_it_can_be():
    x = np.zeros(3)
    assert np.shares_memory(numpy_function(lambda x: x)(x), x)


@pytest.mark.parametrize("change", [lambda x: x[::-1], lambda x: x[:, ::2], lambda x: x.T])
def test_views_of_any_stride(change):
    x = change(np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(numpy_function(lambda x: x + 1)(x), x + 1)


def test_read_only_arrays_are_copied_without_a_warning():
    x = np.zeros(3)
    x.flags.writeable = False
    np.testing.assert_array_equal(numpy_function(lambda x: x.add_(1))(x), np.ones(3))
    np.testing.assert_array_equal(x, np.zeros(3))


def test_trees_of_results():
    found = numpy_function(lambda x: {"double": 2 * x, "parts": (x, 7)})(np.ones(2))
    np.testing.assert_array_equal(found["double"], [2.0, 2.0])
    assert found["parts"][1] == 7


def test_conjugate_views_come_out_whole():
    z = np.array([1.0 + 2.0j])
    np.testing.assert_array_equal(numpy_function(torch.conj)(z), z.conj())


def test_a_graph_stays_inside():
    weight = torch.ones(2, requires_grad=True)
    np.testing.assert_array_equal(numpy_function(lambda x: weight * x)(np.ones(2)), [1.0, 1.0])


def test_strings_are_refused():
    with pytest.raises(TypeError, match="expected an array of numbers, got dtype <U1"):
        numpy_function(lambda x: x)(np.array(["a"]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_there_and_back_from_a_gpu():
    layer = nn.Linear(2, 1).cuda()
    assert isinstance(numpy_function(layer)(np.ones((1, 2))), np.ndarray)
    jacobian = numpy_function(jacobian_forward(layer), dtype=torch.float32, device="cuda")
    np.testing.assert_allclose(jacobian(np.ones(2)), layer.weight.detach().cpu(), rtol=1e-6)
