import re

import pytest
import torch

import funcdiff as fd
from _ext.shown import bad_input
from _ext.shown.bad_input_cases import CASES, ROWS, X, cube_sum
from funcdiff._automatic.planning import Candidate, Plan
from funcdiff._torch.tape import Sketch
from funcdiff.checks.registry import REGISTRY


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_and_left_as_it_was(case):
    before = X.clone(), ROWS.clone()
    with pytest.raises(case.error, match=case.text) as refusal:
        case.provoke()
    assert refusal.type is case.error
    assert X.equal(before[0])
    assert ROWS.equal(before[1])


WRONG_POINTS = {
    "integers": (lambda x: x.long(), TypeError, "floating-point"),
    "complex numbers": (lambda x: x * 1j, TypeError, "real .*view_as_real"),
    "a sparse tensor": (lambda x: x.to_sparse(), TypeError, "dense .*sparse_coo"),
}


@pytest.mark.parametrize("name", WRONG_POINTS)
@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_every_recipe_refuses_a_point_that_it_cannot_differentiate_at(entry, name):
    changed, error, text = WRONG_POINTS[name]
    x = changed(ROWS if entry.kind.startswith("batch") else X)
    with pytest.raises(error, match=text):
        entry(cube_sum, *([x, x] if entry.takes_vector else [x]))


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_every_recipe_refuses_a_function_that_returns_no_tensor(entry):
    x = ROWS if entry.kind.startswith("batch") else X
    with pytest.raises((TypeError, ValueError), match=r"got a float|must only return Tensors"):  # the last is vmap's
        entry(lambda x: 1.0, *([x, x] if entry.takes_vector else [x]))


def test_a_remedy_is_given_once_and_names_its_cause():
    with pytest.raises(RuntimeError, match="randomness=") as refusal:
        fd.hessian_forward_over_forward(lambda x: x * torch.rand_like(x))(X)
    assert str(refusal.value).count("torch said") == 1
    assert "randomness error mode" in str(refusal.value.__cause__)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    "recipe", [fd.jacobian_forward, fd.hessian_forward_over_reverse, fd.hessian_reverse_over_reverse]
)
def test_the_message_on_fused_attention_names_only_functions_that_work_on_it(recipe):
    q = torch.ones(1, 1, 3, 2)
    attention = torch.nn.functional.scaled_dot_product_attention
    with pytest.raises(RuntimeError, match="fused attention") as refusal:
        recipe(lambda q: attention(q, q, q).sum())(q)
    advice = str(refusal.value).partition(" torch said: ")[0]
    assert re.findall(r"\b(?:jacobian|hessian|hvp)\w*", advice) == ["jacobian", "hessian", "hvp"]
    fd.jacobian(lambda q: attention(q, q, q).sum())(q)
    fd.hessian(lambda q: attention(q, q, q).sum())(q)
    fd.hvp(lambda q: attention(q, q, q).sum(), (q,), (q,))


def test_what_batch_norm_writes_has_a_remedy_of_its_own():
    network = torch.nn.BatchNorm1d(3)
    with pytest.raises(fd.RefusedError, match=r"batch norm in training mode.* training=True\) with the whole batch"):
        fd.batch_jacobian(lambda x: network(x[None])[0])(torch.ones(4, 3))
    func, parameters = fd.module_function(network, training=True)
    assert fd.jacobian(func, argnums=1)(parameters, torch.ones(4, 3)).shape == (4, 3, 4, 3)


def test_an_error_of_the_function_itself_comes_through():
    def fail(x):
        raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match=r"^out of cheese$"):
        fd.jacobian_reverse(fail)(X)


def test_the_messages_of_the_site_are_those_of_the_errors():
    messages = bad_input.messages()
    assert [name for name, _, _ in messages] == [case.name for case in CASES]
    assert ("chunk_size 0", "ValueError") in {(name, error) for name, error, _ in messages}
    assert all(message for _, _, message in messages)


def test_the_refusal_of_a_recurrent_layer_of_cudnn_names_the_switch():
    sketch = Sketch(3, 3, operators=frozenset(["_cudnn_rnn"]))
    refusal = str(Plan(sketch, (Candidate("jacobian_forward", None, "it raises: no rule"),)).refusal())
    assert "it raises" in refusal
    assert refusal.endswith("cudnn.flags(enabled=False):`")
