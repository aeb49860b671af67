"""The time of a Hessian-vector product over P processes, from bytes, latencies and rates: no measurement.

A product is a local one and one all-reduce of n numbers and a tail. On a ring each process sends 2 (P - 1) / P of the
bytes in 2 (P - 1) steps. On a tree, which libraries take where latency decides, all bytes go up and down log2 P levels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from funcdiff.distributed.processes import TAIL

FLOPS = 12  # of a product with respect to the parameters of a fully connected network, for each parameter and row


class Link(NamedTuple):
    """A network between processes: bytes a second that each sends, and seconds until the first of them arrives."""

    name: str
    bandwidth: float
    latency: float


class Machine(NamedTuple):
    """What computes: its name and the FLOPs a second that it reaches in matrix products."""

    name: str
    rate: float


class Network(NamedTuple):
    """A neural network on its machines: parameters, rows of each process, bytes of a number."""

    name: str
    parameters: float
    rows: int
    machine: Machine
    item: int = 4


ETHERNET = Link("10 Gbit/s Ethernet", 1.25e9, 30e-6)
FABRIC = Link("400 Gbit/s InfiniBand", 50e9, 5e-6)
SMALL = Network("10⁶ parameters, 1000 rows a core of a processor", 1e6, 1000, Machine("core of a processor", 1e11))
LARGE = Network("10⁹ parameters, 1000 rows a GPU", 1e9, 1000, Machine("GPU", 2e13))
COUNTS = [2**k for k in range(13)]


def sent(parameters: float, item: int, processes: int) -> float:
    """The bytes that each process sends over a ring."""
    return 2 * (parameters + TAIL) * item * (processes - 1) / processes


def local(network: Network, rows: float) -> float:
    """Seconds of the product of `rows` rows on one process."""
    return FLOPS * network.parameters * rows / network.machine.rate


def all_reduce(parameters: float, item: int, link: Link, processes: int) -> float:
    """Seconds of the sum: the faster of a ring and a tree."""
    ring = 2 * (processes - 1) * link.latency + sent(parameters, item, processes) / link.bandwidth
    levels = 2 * math.ceil(math.log2(processes))
    tree = levels * (link.latency + (parameters + TAIL) * item / link.bandwidth)
    return min(ring, tree)


def weak(network: Network, link: Link, processes: int) -> float:
    """The part of the time that is computation, with the same rows on each process."""
    alone = local(network, network.rows)
    return alone / (alone + all_reduce(network.parameters, network.item, link, processes))


def strong(network: Network, link: Link, processes: int, rows: float) -> float:
    """How many times faster P processes are than one, with so many rows in all."""
    shared = local(network, rows / processes) + all_reduce(network.parameters, network.item, link, processes)
    return local(network, rows) / shared


def rows_worth(network: Network, link: Link) -> float:
    """The rows in all from which a second process makes a product faster: half of the work is the time of the sum."""
    return 2 * all_reduce(network.parameters, network.item, link, 2) / local(network, 1)
