"""Ports for servers whose address must be known before they are there."""

import os
import random
import socket
from contextlib import suppress
from itertools import cycle

_LANES = 32
"""Test processes that may run at once, each with ports of its own: two would pick the same one now and then."""

_lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _LANES
# From below the ranges that a suite picks its own from (20000 on) and that the kernel takes port 0 and outgoing
# connections from: a port of theirs may be somebody else's by the time it is used. In turn, so that none is given twice
# before it is used.
_FIRST, _LAST = 10_000, 19_999
_ports = list(range(_FIRST + _lane, _LAST, _LANES))
random.shuffle(_ports)
_turn = cycle(_ports)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    for _ in _ports:
        port = next(_turn)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"none of {len(_ports)} ports between {_FIRST} and {_LAST} is free")
