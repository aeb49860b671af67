"""What goes wrong on one process only, the last one, for the tests of funcdiff.distributed."""

import os
import signal
import time

import torch
import torch.distributed as dist
from distributed_cases import data, network, point
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

import funcdiff as fd
from funcdiff import distributed


def last():
    return dist.get_rank() == dist.get_world_size() - 1


def cubes(x):
    return x.pow(3).sum()


def squares(x):
    return x.pow(2).sum()


def raises(x):
    raise ArithmeticError("no data here")


def other(name):
    """One process calls hvp_operator with something else."""
    bad, x = last(), point()
    net = network("batch norm")
    if bad:
        net[1].running_mean += 1
    of_net = lambda x: net(x[None]).sum()  # noqa: E731  # the same code everywhere, other buffers
    calls = {
        "shape": lambda: distributed.hvp_operator(cubes, x[: 3 if bad else 4]),
        "dtype": lambda: distributed.hvp_operator(cubes, x.float() if bad else x),
        "structure": lambda: distributed.hvp_operator(lambda t: cubes(t[0]), (x,) if bad else [x]),
        "values": lambda: distributed.hvp_operator(
            cubes, x + (1e-16 if bad else 0.0) * x.sign() + (x * 1e-15 if bad else 0)
        ),
        "function": lambda: distributed.hvp_operator(squares if bad else cubes, x),
        "buffers": lambda: distributed.hvp_operator(of_net, x),
        "samples": lambda: distributed.hvp_operator(cubes, x, samples=None if bad else 1),
        "raises": lambda: distributed.hvp_operator((lambda x: raises(x)) if bad else (lambda x: cubes(x)), x),
        "call": lambda: distributed.jacobian(cubes)(x) if bad else distributed.hvp_operator(cubes, x),
        "argument": lambda: distributed.hvp_operator(cubes, x.long() if bad else x),
        "options": lambda: distributed.jacobian(cubes, split="inputs" if bad else "outputs")(x),
    }
    return calls[name]()


def late():
    """One process raises in a product, and then none does."""
    operator = distributed.hvp_operator(cubes, point())
    v = torch.ones(4, dtype=torch.float64)
    told = ""
    try:
        operator(v.float() if last() else v)
    except (TypeError, RuntimeError) as error:
        told = f"{type(error).__name__}: {error}"
    return told, torch.allclose(operator(v), dist.get_world_size() * 6 * point())


def tangents(change):
    """One process passes another vector."""
    v = torch.ones(4, dtype=torch.float64)
    changes = {"sign": -v, "last bit": torch.nextafter(v, 2 * v), "scale": 2 * v}
    operator = distributed.hvp_operator(cubes, point())
    return operator(changes[change] if last() else v)


def not_a_number():
    """NaN in the data of one process."""
    X = data()[0]
    if last():
        X = X * float("nan")
    return distributed.hvp_operator(lambda w: (X @ w).pow(4).sum(), point())(point())


def lost(how, where):
    """One process is gone, or late: before the plan, or before a product."""
    operator = distributed.hvp_operator(cubes, point()) if where == "product" else None
    if last():
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "left":
            os._exit(0)
        time.sleep(6)
    start = time.monotonic()
    try:
        if operator is None:
            distributed.jacobian(cubes)(point())
        else:
            operator(point())
    except RuntimeError as error:
        return str(error), time.monotonic() - start
    return "", 0.0


def subset():
    """A group of the first processes; the last is no member."""
    size = dist.get_world_size()
    group = dist.new_group(list(range(size - 1)))
    operator = distributed.hvp_operator(cubes, point(), group=group)
    return operator(point())


def wrapped(name):
    """DDP's silent product, and that it is refused."""
    net = nn.Linear(4, 1).double()
    ddp = nn.parallel.DistributedDataParallel(net)

    class Trainer:
        network = None

    trainer = Trainer()
    trainer.network = {"it": [ddp]}
    x = point()

    def hidden(x):
        return trainer.network["it"][0](x).pow(2).sum()

    calls = {
        "module_function": lambda: fd.module_function(ddp),
        "inside": lambda: fd.module_function(nn.Sequential(ddp)),
        "jacobian": lambda: fd.jacobian(ddp)(x),
        "hessian_reverse_over_reverse": lambda: fd.hessian_reverse_over_reverse(hidden)(x),
        "hvp": lambda: fd.hvp(hidden, (x,), (x,)),
        "hvp_double_backward": lambda: fd.hvp_double_backward(hidden, (x,), (x,)),
        "hvp_operator": lambda: fd.hvp_operator(hidden, x),
        "batch_jacobian": lambda: fd.batch_jacobian(ddp)(x[None]),
        "batch_jacobian_summed": lambda: fd.batch_jacobian_summed(ddp)(x[None]),
        "laplacian": lambda: fd.laplacian(hidden)(x),
        "jacobian_sparse": lambda: fd.jacobian_sparse(hidden)(x),
        "prepare": lambda: fd.prepare(fd.jacobian_reverse(hidden), x),
        "distributed": lambda: distributed.hvp_operator(hidden, x),
    }
    return calls[name]()


def hooked(name):
    """A network under fully_shard that is called with its hooks."""
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    fully_shard(net)
    x = point()

    def loss(x):
        return net(x).square().sum()

    calls = {
        "hvp": lambda: fd.hvp(loss, (x,), (x,)),
        "hvp_double_backward": lambda: fd.hvp_double_backward(loss, (x,), (x,)),
        "hessian": lambda: fd.hessian(loss)(x),
        "jacobian": lambda: fd.jacobian(net)(x),
        "distributed": lambda: distributed.hessian(loss)(x),
        "jacobian_reverse": lambda: fd.jacobian_reverse(net)(x).detach(),
    }
    return calls[name]()


def flat():
    """A network in the older FullyShardedDataParallel, as far as it is made on a processor."""
    net = FullyShardedDataParallel.__new__(FullyShardedDataParallel)
    nn.Module.__init__(net)
    return fd.module_function(nn.Sequential(net))
