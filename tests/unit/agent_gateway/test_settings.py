"""The addresses that others are told."""

import re
from pathlib import Path
from typing import Any

import pytest

from twinline_agent_gateway.settings import Settings
from twinline_kit.errors import InvalidArgument

ALL = ("ENROLL", "CONNECT", "MESH")


def read(**values: Any) -> Settings:
    file = Path("file")
    return Settings.read(
        database_url="sqlite:///gateway.db",
        certificate_file=file,
        key_file=file,
        ca_file=file,
        enrollment_key_file=file,
        **values,
    )


@pytest.mark.parametrize("listen", ["0.0.0.0:7400", "[::]:7400", "*:7400", ":7400", "127.0.0.1:0"])
def test_a_gateway_that_cannot_be_dialled_where_it_listens_must_say_where_it_is_reached(listen: str) -> None:
    with pytest.raises(InvalidArgument, match=f"nobody can dial {re.escape(listen)}") as refused:
        read(api_listen=listen, mesh_listen=listen)
    for name in ALL:
        assert f"TWINLINE_AGENT_GATEWAY_ADVERTISED_{name}_ADDRESS cannot be used" in refused.value.message


def test_it_may_listen_everywhere_when_it_says_so() -> None:
    given = {f"advertised_{name.lower()}_address": "gateway.example:7400" for name in ALL}
    assert read(api_listen="0.0.0.0:7400", mesh_listen="0.0.0.0:7401", **given).advertised_enroll_address


def test_one_that_listens_on_an_address_is_reached_there() -> None:
    assert read(api_listen="10.0.0.5:7400", mesh_listen="10.0.0.5:7401").advertised_connect_address == ""
