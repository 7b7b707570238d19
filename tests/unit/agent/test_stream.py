"""When the agent dials again, and when it does not."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import islice

import grpc
import grpc.aio
import pytest

from twinline_agent.errors import Refused
from twinline_agent.stream import DENIED, FATAL, REASON_KEY, backoff, serve


class Enough(BaseException):
    """Ends a loop that would go on for ever."""


def lost(code: grpc.StatusCode, *trailers: tuple[str, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), "why not")


def sessions(*outcomes: BaseException | float | None) -> Callable[[], Awaitable[float | None]]:
    """A session that ends in these ways, one after the other."""
    remaining = iter(outcomes)

    async def session() -> float | None:
        outcome = next(remaining, Enough())
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return session


def recorded(waits: list[float]) -> Callable[[float], Iterator[float]]:
    """No delay at all, but a note of each that would have been."""

    def delays(longest: float) -> Iterator[float]:
        for number in range(1000):
            waits.append(number if longest < 1.0 else longest)
            yield 0.0

    return delays


def test_waits_double_from_half_a_second_to_half_a_minute_and_are_left_to_chance() -> None:
    for longest, wait in zip((0.5, 1, 2, 4, 8, 16, 30, 30), islice(backoff(), 8), strict=True):
        assert longest / 2 <= wait <= longest
    assert len({next(backoff()) for _ in range(20)}) > 1


@pytest.mark.parametrize("reason", sorted(FATAL))
async def test_a_refusal_that_waiting_cannot_cure_ends_it(reason: str) -> None:
    refusal = lost(grpc.StatusCode.PERMISSION_DENIED, (REASON_KEY, reason))
    with pytest.raises(Refused, match="why not"):
        await serve(sessions(ExceptionGroup("talk", [refusal])))


@pytest.mark.parametrize("code", sorted(DENIED, key=str))
async def test_a_denial_by_somebody_else_is_waited_out_at_the_longest(code: grpc.StatusCode) -> None:
    waits: list[float] = []
    with pytest.raises(Enough):
        await serve(sessions(lost(code), lost(code, (REASON_KEY, "ANOTHER")), None), recorded(waits))
    assert waits == [30.0, 30.0, 30.0]


@pytest.mark.parametrize(
    "outcome",
    [
        *(lost(code) for code in grpc.StatusCode if code not in DENIED),
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
