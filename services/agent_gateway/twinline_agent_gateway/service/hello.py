"""The first message of a stream."""

import asyncio
from typing import Any

import grpc.aio

from twinline_agent_gateway.errors import StreamMalformed

WITHIN = 20.0
"""Seconds in which it must be said."""


async def first(context: grpc.aio.ServicerContext[Any, Any]) -> object:
    """The first message, whatever it is. Raises StreamMalformed when there is none in time."""
    try:
        async with asyncio.timeout(WITHIN):
            return await context.read()
    except TimeoutError:
        raise StreamMalformed(f"there was no hello within {WITHIN:.0f} s: say it at once") from None
