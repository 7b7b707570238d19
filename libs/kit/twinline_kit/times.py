"""Moments and lengths of time as the contract carries them."""

from datetime import datetime, timedelta
from typing import overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from twinline_kit.errors import InvalidArgument


@overload
def timestamp(at: datetime) -> Timestamp: ...
@overload
def timestamp(at: None) -> None: ...
@overload
def timestamp(at: datetime | None) -> Timestamp | None: ...
def timestamp(at: datetime | None) -> Timestamp | None:
    """The moment as protobuf writes it; None stays None, so that the field is absent."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message


def duration(of: timedelta) -> Duration:
    """The length of time as protobuf writes it."""
    message = Duration()
    message.FromTimedelta(of)
    return message


def given(of: Duration, longest: timedelta, *, field: str) -> timedelta:
    """The length of time that a caller gave as `field`: more than nothing, at most `longest`. InvalidArgument else.

    Asked before anything is calculated: what travels may be longer than any number of ours holds.
    """
    length = timedelta()
    if 0 <= of.seconds <= longest.total_seconds():
        length = timedelta(seconds=of.seconds, microseconds=of.nanos // 1000)
    if not timedelta() < length <= longest:
        raise InvalidArgument(f"{field} must be more than nothing and at most {longest.days} days", field=field)
    return length
