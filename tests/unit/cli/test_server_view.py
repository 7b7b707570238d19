"""How a server looks whose definition and machine differ."""

from typing import Any

import pytest

from twinline.launcher.v1 import servers_pb2 as pb
from twinline_cli import server_view as view


def server(**given: Any) -> pb.Server:
    """One that runs what it is defined as."""
    spec = {"template": "web", "image": "v4", "cloud_key": "fk", "security_groups": ["open"], "tags": ["role=web"]}
    made: dict[str, Any] = spec | {"cloud_key": "key-1", "cloud_key_name": "fk", "instance_type": "local-small"}
    return pb.Server(
        name="web-1",
        next=pb.ServerSpec(**spec | given),
        state=pb.SERVER_STATE_OPERATIONAL,
        has_machine=True,
        current=pb.Instance(**made, address="127.0.0.1:2201"),
    )


def shown(of: pb.Server) -> dict[str, str]:
    return {column.title: text for column in view.DETAILS if (text := column.text(of))}


def test_the_machine_is_shown_as_it_was_launched_and_the_next_launch_by_what_differs() -> None:
    told = shown(server(image="v5", security_groups=["web", "open"], tags=[], cloud_key="other"))
    assert (told["IMAGE"], told["CLOUD KEY"], told["SECURITY GROUPS"], told["TAGS"]) == ("v4", "fk", "open", "role=web")
    assert told["NEXT LAUNCH"] == "image v5; cloud key other; security groups open, web; no tags"


@pytest.mark.parametrize("key", ["fk", "key-1"])
def test_a_definition_that_did_not_change_is_not_told_twice(key: str) -> None:
    assert "NEXT LAUNCH" not in shown(server(cloud_key=key))


def test_another_instance_type_is_told_and_none_is_the_choice_of_the_cloud() -> None:
    assert shown(server(instance_type="local-large"))["NEXT LAUNCH"] == "instance type local-large"
    assert shown(server())["INSTANCE TYPE"] == "local-small"


def test_of_a_machine_whose_template_and_image_were_not_kept_neither_is_made_up() -> None:
    old = server()
    old.current.template = old.current.image = ""
    told = shown(old)
    assert not told.keys() & {"TEMPLATE", "IMAGE", "NEXT LAUNCH"}


def test_a_server_that_never_was_launched_shows_what_it_is_defined_as() -> None:
    told = shown(pb.Server(name="web-1", state=pb.SERVER_STATE_INACTIVE, next=server().next))
    assert (told["TEMPLATE"], told["CLOUD KEY"]) == ("web", "fk")
    assert "NEXT LAUNCH" not in told


def test_the_address_of_a_machine_that_is_gone_is_left_out() -> None:
    gone = server()
    assert shown(gone)["ADDRESS"] == "127.0.0.1:2201"
    gone.has_machine = False
    assert "ADDRESS" not in shown(gone)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (pb.Step(state=pb.Step.STATE_RUNNING), "running"),
        (pb.Step(state=pb.Step.STATE_DELIVERED), "delivered"),
        (pb.Step(state=pb.Step.STATE_PENDING, reason="PORT_UNREACHABLE"), "pending (PORT_UNREACHABLE)"),
    ],
)
def test_a_step_whose_task_does_not_run_says_what_it_waits_for(step: pb.Step, text: str) -> None:
    assert view.step_state(step) == text
