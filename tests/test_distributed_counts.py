"""A product sends what the model says, in one all-reduce."""

import distributed_counts as counts
import pytest
from gang import Gang, passed

from funcdiff.distributed.processes import TAIL

NO_COUNT = "the kernel does not tell what a connection sent"


@pytest.fixture(scope="module", params=[2, 3])
def gang(request):
    processes = Gang(request.param)
    yield processes
    processes.close()


def model(numbers, processes, item=8):
    """The bytes that each process sends in a sum over a ring."""
    return 2 * numbers * item * (processes - 1) / processes


@pytest.mark.parametrize("size", [5, 100_000])
def test_a_product_is_one_all_reduce_of_the_bytes_in_the_model(gang, size):
    results = passed(gang(counts.product, size))
    for cost, _ in results:
        assert cost.collectives == 1
        assert cost.bytes_sent == round(model(size + TAIL, len(results)))
        assert repr(cost).splitlines()[-1].split() == ["sent", *cost.sent.split()]


def test_the_wire_carries_what_is_counted(gang):
    results = passed(gang(counts.product, 100_000))
    sent = sum(wire for _, wire in results)
    if not sent:
        pytest.skip(NO_COUNT)
    assert 1 <= sent / sum(cost.bytes_sent for cost, _ in results) < 1.01  # with the headers of gloo


def test_formulas_of_collectives_are_what_is_sent(gang):
    results = passed(gang(counts.collectives))
    for name in results[0]:
        counted = sum(result[name][0] for result in results)
        sent = sum(result[name][1] for result in results)
        if not sent:
            pytest.skip(NO_COUNT)
        assert 0.999 <= sent / counted < 1.02, (name, counted, sent)


def test_sharded_parameters_add_the_gathering_of_the_vector(gang):
    (cost, size), *_ = passed(gang(counts.of_module, "replicated"))
    (sharded, same), *_ = passed(gang(counts.of_module, "sharded"))
    processes = len(gang.processes)
    assert size == same
    assert cost.collectives == 1
    assert cost.bytes_sent == round(model(size + TAIL, processes))
    assert sharded.collectives == 1 + 4  # the gradient's sum, and each parameter's part of the vector


def test_a_jacobian_sends_digests_once_and_then_nothing(gang):
    for first, later in passed(gang(counts.jacobian)):
        assert first.collectives == 2
        assert first.bytes_sent < 200 * len(gang.processes)
        assert (later.collectives, later.bytes_sent) == (0, 0)
