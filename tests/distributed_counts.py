"""What a product sends, counted and on the wire, for the tests of funcdiff.distributed."""

import contextlib
import os
import socket
import struct
from pathlib import Path

import torch
import torch.distributed as dist
from distributed_cases import data, mean_loss, network, own
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import funcdiff as fd
from funcdiff import distributed
from funcdiff._torch.processes import all_gather_single
from funcdiff.measure import count

SENT = 200  # where struct tcp_info has tcpi_bytes_sent and tcpi_bytes_retrans, since Linux 4.19


def wire():
    """The bytes that this process has sent over all of its TCP connections."""
    total = 0
    for file in Path("/proc/self/fd").iterdir():
        if not file.is_socket():
            continue
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as connection:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            sent, again = struct.unpack_from("QQ", told, SENT) if len(told) >= SENT + 16 else (0, 0)
            total += sent - again
    return total


def product(size):
    """A product's counts, and what five products send."""
    x = torch.linspace(0, 1, size, dtype=torch.float64)
    operator = distributed.hvp_operator(lambda x: x.pow(3).sum(), x)
    cost = count(operator, x)
    dist.barrier()
    before = wire()
    for _ in range(5):
        operator(x)
    return cost, (wire() - before) / 5


def of_module(kind):
    """A product with respect to the parameters of a network, by its kinds of tensors."""
    net = network()
    if kind == "sharded":
        fully_shard(net)
    predict, parameters = fd.module_function(net)
    operator = distributed.hvp_operator(mean_loss(predict, *own("unequal")), parameters, samples=len(own("unequal")[0]))
    return count(operator, parameters), sum(x.numel() for x in parameters.values())


def jacobian():
    """The first call, and a later one."""
    x = data()[0][0]
    recipe = distributed.jacobian(lambda x: x.outer(x).reshape(-1), split="outputs")
    return count(recipe, x), count(recipe, x)


def collectives():
    """Every formula beside the wire: a name, what is counted, and what is sent."""
    n, size = 60_000, dist.get_world_size()
    x, parts = torch.ones(n, dtype=torch.float64), torch.empty(size * n, dtype=torch.float64)
    mesh = init_device_mesh("cpu", (size,))
    columns = distribute_tensor(torch.ones(300, 300, dtype=torch.float64), mesh, [Shard(1)])
    calls = {
        "all_reduce": lambda: dist.all_reduce(x),
        "all_gather": lambda: all_gather_single(parts, x),
        "full_tensor": columns.full_tensor,
    }
    found = {}
    for name, call in calls.items():
        call()
        dist.barrier()
        before = wire()
        cost = count(call)
        found[name] = cost.bytes_sent, wire() - before
        dist.barrier()
    return found
