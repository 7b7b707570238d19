"""The RPCs, one module for each proto file."""

from typing import Any

import grpc.aio

Context = grpc.aio.ServicerContext[Any, Any]
"""What grpc hands every RPC beside its request."""
