"""Rows to messages."""

from twinline.keys.v1 import cloud_keys_pb2, credentials_pb2, people_pb2
from twinline_keys.models import CloudKey, Credential
from twinline_kit.auth import Caller, Grant
from twinline_kit.times import timestamp


def cloud_key(row: CloudKey) -> cloud_keys_pb2.CloudKey:
    """A key as anybody may see it: of the private half only whether it is here."""
    return cloud_keys_pb2.CloudKey(
        id=row.id,
        name=row.name,
        public_key=row.public_key,
        fingerprint=row.fingerprint,
        has_material=row.sealed is not None,
        create_time=timestamp(row.create_time),
        material_time=timestamp(row.material_time),
    )


def credential(row: Credential) -> credentials_pb2.Credential:
    """A credential without its value."""
    return credentials_pb2.Credential(name=row.name, update_time=timestamp(row.update_time))


def person(caller: Caller) -> people_pb2.Person:
    """A caller who presented a token."""
    role = people_pb2.ROLE_ADMIN if Grant.ADMIN in caller.grants else people_pb2.ROLE_OBSERVER
    return people_pb2.Person(name=caller.name, role=role)
