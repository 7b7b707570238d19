"""What guards a machine's row, on both databases."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.launcher.machines import NOON, machine, minutes
from twinline_kit.errors import Conflict
from twinline_launcher.errors import IllegalTransition, InstanceNotFound, ServerNotFound
from twinline_launcher.models import Instance, Server
from twinline_launcher.states import Event, State
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.store.servers import Seen, ServerStore

LEASE = timedelta(seconds=10)


def definition(name: str = "web-1", **given: Any) -> Server:
    fields: dict[str, Any] = {
        "id": f"server-{name}", "name": name, "deployment": "", "template": "web", "image": "v4", "instance_type": "",
        "cloud_key": "", "security_groups": [], "inputs": {}, "tags": [], "create_time": NOON, "update_time": NOON,
    }  # fmt: skip
    return Server(**fields | given)


def launched(servers: ServerStore, instances: InstanceStore, number: int = 1, **given: Any) -> Instance:
    """A machine that a server was given at noon."""
    server = servers.apply(definition(f"web-{number}"))
    fields = {"id": f"instance-{number}", "server_id": server.id, "server_name": server.name} | given
    return instances.launch(server, machine(**fields), at=NOON, cause="launched")


def steps_of(servers: ServerStore, server: str = "server-web-1") -> list[tuple[int, str, str]]:
    return [(each.number, each.before, each.after) for each in servers.transitions(server, after=0, limit=100)]


def test_applying_a_definition_twice_changes_nothing_and_keeps_the_machine(
    servers: ServerStore, instances: InstanceStore
) -> None:
    launched(servers, instances)
    before = servers.get("web-1").server
    again = servers.apply(definition(id="server-other", update_time=minutes(5)))
    assert (again.id, again.revision, again.update_time) == (before.id, before.revision, before.update_time)
    changed = servers.apply(definition(tags=["role=web"], update_time=minutes(6)))
    assert (changed.tags, changed.current, changed.revision) == (["role=web"], "instance-1", before.revision + 1)


def test_a_launch_makes_the_machine_its_history_and_the_link_in_one(
    servers: ServerStore, instances: InstanceStore
) -> None:
    launched(servers, instances)
    whole = servers.get("web-1")
    assert whole.instance
    assert (whole.instance.state, whole.instance.due_time) == (State.PENDING, NOON)
    assert steps_of(servers) == [(1, "inactive", "pending")]


def test_a_second_launch_is_illegal_and_leaves_nothing(servers: ServerStore, instances: InstanceStore) -> None:
    launched(servers, instances)
    server = servers.get("web-1").server
    with pytest.raises(IllegalTransition):
        instances.launch(server, machine(id="instance-2", server_id=server.id), at=NOON, cause="")
    with pytest.raises(InstanceNotFound):
        instances.get("instance-2")


def test_of_two_launches_at_once_one_is_told_to_read_again(servers: ServerStore, instances: InstanceStore) -> None:
    server = servers.apply(definition())
    instances.launch(server, machine(server_id=server.id), at=NOON, cause="")
    stale = definition(id=server.id)
    with pytest.raises(Conflict):
        instances.launch(stale, machine(id="instance-2", server_id=server.id), at=NOON, cause="")
    with pytest.raises(InstanceNotFound):
        instances.get("instance-2")


def test_a_request_makes_one_step_of_one_server(servers: ServerStore, instances: InstanceStore) -> None:
    made, server = launched(servers, instances), servers.apply(definition("web-2"))
    instances.apply(made.id, Event.RUN, at=NOON, cause="", request_id="one")
    with pytest.raises(Conflict):
        instances.apply(made.id, Event.TERMINATE, at=NOON, cause="", request_id="one")
    with pytest.raises(Conflict):
        instances.launch(server, machine(id="instance-2", server_id=server.id), at=NOON, cause="", request_id="one")
    first = instances.made_by("one")
    assert first and (first.instance_id, first.event) == (made.id, Event.RUN)
    assert (instances.get(made.id).state, servers.get("web-2").instance) == (State.BOOTING, None)


def test_a_move_writes_state_facts_and_history_together(servers: ServerStore, instances: InstanceStore) -> None:
    made = launched(servers, instances)
    moved = instances.apply(made.id, Event.RUN, at=minutes(1), cause="it runs", cloud_id="i-1", run_time=minutes(1))
    assert (moved.state, moved.state_time, moved.cause) == (State.BOOTING, minutes(1), "it runs")
    assert (moved.cloud_id, moved.run_time, moved.revision) == ("i-1", minutes(1), made.revision + 1)
    assert steps_of(servers)[1:] == [(2, "pending", "booting")]


def test_an_illegal_move_and_one_on_an_old_revision_write_nothing(
    servers: ServerStore, instances: InstanceStore
) -> None:
    made = launched(servers, instances)
    with pytest.raises(IllegalTransition):
        instances.apply(made.id, Event.RESUME, at=NOON, cause="")
    instances.save(made.id, revision=made.revision, cloud_id="i-1")
    with pytest.raises(Conflict):
        instances.apply(made.id, Event.RUN, at=NOON, cause="", revision=made.revision)
    with pytest.raises(Conflict):
        instances.save(made.id, revision=made.revision, cloud_id="i-2")
    assert (instances.get(made.id).state, instances.get(made.id).cloud_id) == (State.PENDING, "i-1")
    assert len(steps_of(servers)) == 1


def test_leaving_a_stranded_state_forgets_why(servers: ServerStore, instances: InstanceStore) -> None:
    made = launched(servers, instances)
    instances.apply(made.id, Event.RUN, at=NOON, cause="")
    stranded = instances.apply(made.id, Event.STRAND, at=NOON, cause="", stranding={"reason": "X"})
    assert stranded.stranding == {"reason": "X"}
    assert instances.apply(made.id, Event.RESUME, at=NOON, cause="").stranding is None


def test_a_relaunch_goes_on_with_the_numbers(servers: ServerStore, instances: InstanceStore) -> None:
    made = launched(servers, instances)
    instances.apply(made.id, Event.VANISH, at=NOON, cause="")
    second = instances.launch(
        servers.get("web-1").server, machine(id="instance-2", server_id=made.server_id), at=NOON, cause=""
    )
    assert steps_of(servers)[1:] == [(2, "pending", "terminated"), (3, "terminated", "pending")]
    assert second.number == 3


def test_a_machine_is_held_by_one_replica_until_its_lease_ends(servers: ServerStore, instances: InstanceStore) -> None:
    made = launched(servers, instances)
    assert instances.claim("a", at=minutes(1), lease=LEASE, limit=5).instances == [made.id]
    refused = instances.claim("b", at=minutes(1), lease=LEASE, limit=5)
    assert (list(refused.instances), refused.next_due) == ([], minutes(1) + LEASE)
    assert instances.claim("b", at=minutes(2), lease=LEASE, limit=5).instances == [made.id]
    instances.release(made.id, "a", revision=made.revision, due=minutes(9))  # too late: it is not a's any more
    assert instances.get(made.id).lease_owner == "b"


def test_a_renewed_lease_holds(servers: ServerStore, instances: InstanceStore) -> None:
    launched(servers, instances)
    instances.claim("a", at=minutes(1), lease=LEASE, limit=5)
    instances.renew("a", ["instance-1"], until=minutes(5))
    assert not instances.claim("b", at=minutes(2), lease=LEASE, limit=5).instances


def test_only_the_leases_that_are_named_are_renewed_and_none_of_another_replica(
    servers: ServerStore, instances: InstanceStore
) -> None:
    for number in (1, 2, 3):
        launched(servers, instances, number)
    instances.claim("a", at=minutes(1), lease=LEASE, limit=2)
    instances.claim("b", at=minutes(1), lease=LEASE, limit=1)
    instances.renew("a", ["instance-2", "instance-3"], until=minutes(5))
    assert set(instances.claim("c", at=minutes(2), lease=LEASE, limit=5).instances) == {"instance-1", "instance-3"}


def test_a_renewal_tells_what_another_replica_took(servers: ServerStore, instances: InstanceStore) -> None:
    kept, lost, given_back = [launched(servers, instances, number).id for number in (1, 2, 3)]
    instances.claim("a", at=minutes(1), lease=LEASE, limit=5)
    instances.release(given_back, "a", revision=instances.get(given_back).revision, due=None)
    instances.renew("a", [kept], until=minutes(5))
    instances.claim("b", at=minutes(2), lease=LEASE, limit=5)
    assert instances.renew("a", [kept, lost, given_back], until=minutes(6)) == [lost]


def test_what_a_replica_still_works_at_is_not_taken_and_makes_nobody_hurry(
    servers: ServerStore, instances: InstanceStore
) -> None:
    mine, other = [launched(servers, instances, number).id for number in (1, 2)]
    instances.claim("a", at=minutes(1), lease=LEASE, limit=5)
    instances.release(other, "a", revision=instances.get(other).revision, due=minutes(9))
    looked = instances.claim("a", at=minutes(2), lease=LEASE, limit=5, without=[mine])
    assert (list(looked.instances), looked.next_due) == ([], minutes(9))


def test_a_replica_that_leaves_keeps_nothing(servers: ServerStore, instances: InstanceStore) -> None:
    for number in (1, 2, 3):
        launched(servers, instances, number)
    instances.claim("a", at=minutes(1), lease=LEASE, limit=2)
    instances.claim("b", at=minutes(1), lease=LEASE, limit=1)
    instances.leave("a", at=minutes(1))
    later = minutes(1) + LEASE / 2
    assert set(instances.claim("c", at=later, lease=LEASE, limit=5).instances) == {"instance-1", "instance-2"}


def test_a_machine_given_back_is_due_when_said(servers: ServerStore, instances: InstanceStore) -> None:
    made = launched(servers, instances)
    instances.claim("a", at=minutes(1), lease=LEASE, limit=5)
    instances.release(made.id, "a", revision=made.revision, due=minutes(3))
    looked = instances.claim("a", at=minutes(2), lease=LEASE, limit=5)
    assert (list(looked.instances), looked.next_due) == ([], minutes(3))


def test_a_machine_that_was_moved_meanwhile_stays_due(servers: ServerStore, instances: InstanceStore) -> None:
    made = launched(servers, instances)
    instances.claim("a", at=minutes(1), lease=LEASE, limit=5)
    instances.apply(made.id, Event.TERMINATE, at=minutes(1), cause="")
    instances.release(made.id, "a", revision=made.revision, due=None)
    assert instances.claim("a", at=minutes(1), lease=LEASE, limit=5).instances == [made.id]


def test_no_more_machines_are_taken_than_asked_for(servers: ServerStore, instances: InstanceStore) -> None:
    for number in range(5):
        launched(servers, instances, number)
    first = instances.claim("a", at=minutes(1), lease=LEASE, limit=2).instances
    rest = instances.claim("b", at=minutes(1), lease=LEASE, limit=9).instances
    assert (len(first), len(rest), set(first) & set(rest)) == (2, 3, set())
    assert not instances.claim("c", at=minutes(1), lease=LEASE, limit=0).instances


def test_changes_tell_all_once_and_then_only_what_is_new(servers: ServerStore, instances: InstanceStore) -> None:
    made = launched(servers, instances)
    servers.apply(definition("web-2"))
    first = servers.changes({})
    assert [(each.whole.server.name, len(each.transitions)) for each in first] == [("web-1", 1), ("web-2", 0)]
    known: dict[str, Seen] = {each.whole.server.id: each.seen for each in first}
    assert servers.changes(known) == []
    instances.apply(made.id, Event.RUN, at=NOON, cause="")
    instances.apply(made.id, Event.VANISH, at=NOON, cause="")
    instances.launch(servers.get("web-1").server, machine(id="instance-2", server_id=made.server_id), at=NOON, cause="")
    [change] = servers.changes(known)
    assert [each.after for each in change.transitions] == ["booting", "terminated", "pending"]
    assert servers.changes(known, only=["server-web-2"]) == []


def test_pages_go_through_all_servers_by_name_and_of_one_deployment(servers: ServerStore) -> None:
    for name in ("c", "a", "b"):
        servers.apply(definition(name, deployment="prod" if name != "b" else ""))
    page = servers.page(deployment="", after="a", limit=1)
    assert [each.server.name for each in page] == ["b"]
    assert [each.server.name for each in servers.page(deployment="prod", after="", limit=9)] == ["a", "c"]
    with pytest.raises(ServerNotFound):
        servers.get("d")
