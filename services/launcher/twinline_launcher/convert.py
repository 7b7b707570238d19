"""Rows to messages, and messages to rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from twinline.common.v1 import common_pb2
from twinline.launcher.v1 import catalog_pb2, servers_pb2
from twinline_kit.times import duration, timestamp
from twinline_launcher import cost, steps
from twinline_launcher.models import Deployment, Generation, Image, Instance, SecurityGroup, Template, Transition, Whole
from twinline_launcher.plan import Problem
from twinline_launcher.states import MOVING, WITH_MACHINE, Event, State

_DECOMMISSION = frozenset({State.DECOMMISSIONING, State.STRANDED_IN_DECOMMISSIONING})


def server(whole: Whole, image: Image | None, *, at: datetime) -> servers_pb2.Server:
    """A server and its machine as they are; `image`: that of the next launch."""
    row, machine = whole.server, whole.instance
    stands = State(machine.state) if machine else State.INACTIVE
    told = machine.generation if machine else _told(image)
    assumed = machine.generation_assumed if machine else bool(image and image.generation == Generation.UNSPECIFIED)
    return servers_pb2.Server(
        id=row.id,
        name=row.name,
        deployment=row.deployment,
        next=servers_pb2.ServerSpec(
            template=row.template,
            image=row.image,
            instance_type=row.instance_type,
            cloud_key=row.cloud_key,
            security_groups=row.security_groups,
            inputs=row.inputs,
            tags=row.tags,
        ),
        state=state(stands),
        moving=stands in MOVING,
        has_machine=machine is not None and stands in WITH_MACHINE and machine.terminate_time is None,
        current=instance(machine, whole.stranded, at=at) if machine else None,
        create_time=timestamp(row.create_time),
        update_time=timestamp(max(row.update_time, machine.state_time) if machine else row.update_time),
        generation=common_pb2.Generation.ValueType(told),
        generation_assumed=assumed,
    )


def instance(row: Instance, stranded: Sequence[Transition], *, at: datetime) -> servers_pb2.Instance:
    """A machine, what it costs, and the list that its state is about."""
    decommissions = row.state in _DECOMMISSION or any(each["attempt"] for each in row.decommission)
    return servers_pb2.Instance(
        id=row.id,
        cloud_id=row.cloud_id,
        address=row.address,
        agent_id=row.agent_id,
        cloud_key=row.cloud_key,
        inputs=[_input(each) for each in row.inputs],
        stranding=servers_pb2.Stranding(**row.stranding, since=timestamp(row.state_time)) if row.stranding else None,
        cost=_cost(cost.of(row, stranded, at=at)),
        launch_time=timestamp(row.launch_time),
        terminate_time=timestamp(row.terminate_time),
        cause=row.cause,
        steps=[
            servers_pb2.Step(
                script=step.title,
                revision=step.revision,
                run=step.run,
                state=servers_pb2.Step.State.Value(f"STATE_{step.state.name}"),
                reason=step.reason,
            )
            for step in steps.load(row.decommission if decommissions else row.boot)
        ],
        template=row.template,
        image=row.image,
        instance_type=row.instance_type,
        cloud_key_name=row.cloud_key_name,
        security_groups=row.security_groups,
        tags=row.tags,
    )


def transition(row: Transition) -> servers_pb2.Transition:
    """One step of a server's life."""
    message = servers_pb2.Transition(
        instance=row.instance_id,
        to=state(row.after),
        event=servers_pb2.Transition.Event.Value(f"EVENT_{Event(row.event).name}"),
        cause=row.cause,
        time=timestamp(row.time),
    )
    setattr(message, "from", state(row.before))  # a keyword of Python
    return message


def problem(found: Problem) -> servers_pb2.Violation:
    """Something that would go wrong."""
    return servers_pb2.Violation(reason=found.reason, message=found.message, blocking=found.blocking)


def state(of: str) -> servers_pb2.ServerState.ValueType:
    """A state as the contract numbers it."""
    return servers_pb2.ServerState.Value(f"SERVER_STATE_{State(of).name}")


def image(row: Image) -> catalog_pb2.Image:
    """An image as it was applied: an unstated generation stays so."""
    return catalog_pb2.Image(
        name=row.name,
        cloud=row.cloud,
        cloud_image=row.cloud_image,
        generation=common_pb2.Generation.ValueType(row.generation),
        update_time=timestamp(row.update_time),
    )


def security_group(row: SecurityGroup) -> catalog_pb2.SecurityGroup:
    """A security group."""
    return catalog_pb2.SecurityGroup(
        name=row.name, cloud=row.cloud, open_ports=row.open_ports, update_time=timestamp(row.update_time)
    )


def template(row: Template) -> catalog_pb2.ServerTemplate:
    """A template."""
    return catalog_pb2.ServerTemplate(
        name=row.name,
        description=row.description,
        boot=[catalog_pb2.ScriptReference(**each) for each in row.boot],
        operational=[catalog_pb2.ScriptReference(**each) for each in row.operational],
        decommission=[catalog_pb2.ScriptReference(**each) for each in row.decommission],
        inputs=row.inputs,
        update_time=timestamp(row.update_time),
    )


def deployment(row: Deployment) -> catalog_pb2.Deployment:
    """A deployment."""
    return catalog_pb2.Deployment(
        name=row.name, description=row.description, inputs=row.inputs, update_time=timestamp(row.update_time)
    )


def _told(of: Image | None) -> Generation:
    if of is None:
        return Generation.UNSPECIFIED
    return Generation(of.generation) or Generation.V4


def _input(frozen: Mapping[str, str]) -> servers_pb2.Input:
    origin = servers_pb2.Input.Origin.Value(f"ORIGIN_{frozen['origin'].upper()}")
    return servers_pb2.Input(name=frozen["name"], value=frozen["value"], origin=origin)


def _cost(of: cost.Cost) -> servers_pb2.Cost:
    return servers_pb2.Cost(
        currency=of.currency,
        micros=of.micros,
        stranded_micros=of.stranded_micros,
        hourly_micros=of.hourly_micros,
        billed=duration(of.billed),
        stranded=duration(of.stranded),
    )
