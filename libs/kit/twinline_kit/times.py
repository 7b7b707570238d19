"""Moments and lengths of time as the contract carries them."""

from datetime import datetime, timedelta
from typing import overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


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
