"""Texts of requests."""

import pytest
from google.protobuf.message import Message

from twinline.executor.v1 import runs_pb2, targets_pb2
from twinline.launcher.v1 import catalog_pb2, servers_pb2
from twinline_kit.errors import InvalidArgument
from twinline_kit.texts import refuse_nul

NUL = "a\0b"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (runs_pb2.GetRunRequest(run=NUL), "run"),
        (runs_pb2.StartRunRequest(targets=["web-1", NUL]), "targets"),
        (runs_pb2.StartRunRequest(inputs={NUL: "text:x"}), "inputs"),
        (runs_pb2.StartRunRequest(inputs={"PORT": NUL}), "inputs"),
        (targets_pb2.ApplyTargetsRequest(targets=[targets_pb2.Target(tags=[NUL])]), "targets.tags"),
        (servers_pb2.ApplyServerRequest(next=servers_pb2.ServerSpec(tags=["", NUL])), "next.tags"),
    ],
)
def test_a_nul_is_found_wherever_it_is(request_: Message, field: str) -> None:
    with pytest.raises(InvalidArgument, match="holds a NUL, which no text may") as refusal:
        refuse_nul(request_)
    assert refusal.value.metadata == {"field": field}


def test_bytes_and_numbers_may_have_what_they_want() -> None:
    given = catalog_pb2.SecurityGroup(name="ssh", open_ports=[0, 256])
    refuse_nul(catalog_pb2.ApplySecurityGroupRequest(security_group=given))
    refuse_nul(runs_pb2.ReadOutputResponse(data=b"a\0b"))
