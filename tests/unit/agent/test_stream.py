"""When the agent dials again, and when it does not."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import islice

import grpc
import grpc.aio
import pytest

from twinline_agent.errors import Refused
from twinline_agent.stream import FATAL, backoff, serve


class Enough(BaseException):
    """Ends a loop that would go on for ever."""


def lost(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "why not")


def sessions(*outcomes: BaseException | float | None) -> Callable[[], Awaitable[float | None]]:
    """A session that ends in these ways, one after the other."""
    remaining = iter(outcomes)

    async def session() -> float | None:
        outcome = next(remaining, Enough())
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return session


def recorded(waits: list[float]) -> Callable[[], Iterator[float]]:
    """No delay at all, but a note of each that would have been."""

    def delays() -> Iterator[float]:
        for number in range(1000):
            waits.append(number)
            yield 0.0

    return delays


def test_waits_double_from_half_a_second_to_half_a_minute_and_are_left_to_chance() -> None:
    for longest, wait in zip((0.5, 1, 2, 4, 8, 16, 30, 30), islice(backoff(), 8), strict=True):
        assert longest / 2 <= wait <= longest
    assert len({next(backoff()) for _ in range(20)}) > 1


@pytest.mark.parametrize("code", sorted(FATAL, key=str))
async def test_an_answer_that_waiting_cannot_cure_ends_it(code: grpc.StatusCode) -> None:
    with pytest.raises(Refused, match="why not"):
        await serve(sessions(ExceptionGroup("talk", [lost(code)])))


@pytest.mark.parametrize(
    "outcome",
    [
        *(lost(code) for code in grpc.StatusCode if code not in FATAL),
        ExceptionGroup("talk", [lost(grpc.StatusCode.UNAVAILABLE)]),
        TimeoutError(),
        OSError("no space left on device"),
        KeyError("a bug"),
    ],
)
async def test_everything_else_is_waited_out(outcome: BaseException) -> None:
    waits: list[float] = []
    with pytest.raises(Enough):
        await serve(sessions(outcome, outcome, None), recorded(waits))
    assert waits == [0, 1, 2]


async def test_a_drain_is_obeyed_and_starts_the_waits_afresh() -> None:
    waits: list[float] = []
    with pytest.raises(Enough):
        await serve(sessions(None, None, 0.001, None), recorded(waits))
    assert waits == [0, 1, 0]
