"""How servers look on the command line."""

from collections.abc import Iterable

from twinline.common.v1 import common_pb2
from twinline.launcher.v1 import servers_pb2 as pb
from twinline_cli.output import Column, when, word

_MICROS = 1_000_000


def state(value: pb.ServerState.ValueType) -> str:
    """A state in the word that selectors take: `stranded_in_booting`."""
    return word(pb.ServerState, value)


def generation(server: pb.Server) -> str:
    """`v4`, `v5`, or `v4 (assumed)` when the image does not say."""
    name = "v5" if server.generation == common_pb2.GENERATION_V5 else "v4"
    return f"{name} (assumed)" if server.generation_assumed else name


def dollars(micros: int, currency: str) -> str:
    """An amount with as many digits as a fresh server needs."""
    sign = "$" if currency in ("", "USD") else f"{currency} "
    digits = 2 if micros >= _MICROS else 6
    return f"{sign}{micros / _MICROS:.{digits}f}"


def cost(server: pb.Server) -> str:
    """What the present machine has cost, and apart what of it was spent stranded."""
    if not server.current.HasField("cost"):
        return ""
    it = server.current.cost
    total = dollars(it.micros, it.currency)
    return f"{total} ({dollars(it.stranded_micros, it.currency)} stranded)" if it.stranded_micros else total


def stranding(server: pb.Server) -> str:
    """Why a server is stranded and what to do about it, or nothing."""
    if not server.current.HasField("stranding"):
        return ""
    it = server.current.stranding
    step = f" at {it.failed_step}" if it.failed_step else ""
    way_out = f"; {it.way_out}" if it.way_out else ""
    return f"{it.reason}{step}: {it.message}{way_out}"


def price(server: pb.Server) -> str:
    """What an hour of the present machine costs."""
    it = server.current.cost
    return f"{dollars(it.hourly_micros, it.currency)} an hour" if it.hourly_micros else ""


def address(server: pb.Server) -> str:
    """Where the present machine is reached; nothing once it is gone."""
    return server.current.address if server.has_machine else ""


def made_of(server: pb.Server) -> pb.ServerSpec:
    """What the present machine was launched with; of a server that never was launched, what it would be."""
    it = server.current
    if not server.HasField("current"):
        return server.next
    return pb.ServerSpec(
        template=it.template,
        image=it.image,
        instance_type=it.instance_type,
        cloud_key=it.cloud_key_name,
        security_groups=it.security_groups,
        tags=it.tags,
    )


def next_launch(server: pb.Server) -> str:
    """What the next launch would be made of, where that is not what the present machine was; or nothing."""
    if not server.HasField("current"):
        return ""
    now, then = made_of(server), server.next
    changed = [
        _changed("template", then.template, now.template or then.template),  # of an old machine it is not known
        _changed("image", then.image, now.image or then.image),
        _changed("instance type", then.instance_type, now.instance_type if then.instance_type else ""),
        _changed("cloud key", then.cloud_key, _called(server.current, then.cloud_key)),
        _changed("security groups", _listed(then.security_groups), _listed(now.security_groups)),
        _changed("tags", _listed(then.tags), _listed(now.tags)),
    ]
    return "; ".join(filter(None, changed))


def step_state(step: pb.Step) -> str:
    """Where a step stands, and what it waits for."""
    said = word(pb.Step.State, step.state)
    return f"{said} ({step.reason})" if step.reason else said


def _changed(what: str, then: str, now: str) -> str:
    if then == now:
        return ""
    return f"{what} {then}" if then else f"no {what}"


def _called(machine: pb.Instance, key: str) -> str:
    """The machine's cloud key: by its id where `key` is that, else by its name."""
    return key if key == machine.cloud_key else machine.cloud_key_name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


COLUMNS: list[Column[pb.Server]] = [
    Column("NAME", lambda server: server.name),
    Column("GENERATION", generation),
    Column("STATE", lambda server: state(server.state), is_state=True),
    Column("DEPLOYMENT", lambda server: server.deployment),
    Column("ADDRESS", address),
    Column("COST", cost),
]
DETAILS: list[Column[pb.Server]] = [
    *COLUMNS,
    Column("ID", lambda server: server.id),
    Column("CAUSE", lambda server: server.current.cause),
    Column("STRANDED", stranding),
    Column("PRICE", price),
    Column("TEMPLATE", lambda server: made_of(server).template),
    Column("IMAGE", lambda server: made_of(server).image),
    Column("INSTANCE TYPE", lambda server: made_of(server).instance_type),
    Column("CLOUD KEY", lambda server: made_of(server).cloud_key),
    Column("SECURITY GROUPS", lambda server: _listed(made_of(server).security_groups)),
    Column("TAGS", lambda server: _listed(made_of(server).tags)),
    Column("NEXT LAUNCH", next_launch),
    Column("INSTANCE", lambda server: server.current.id),
    Column("AGENT", lambda server: server.current.agent_id),
    Column("LAUNCHED", lambda server: when(server.current.launch_time)),
    Column("TERMINATED", lambda server: when(server.current.terminate_time)),
]
STEPS: list[Column[pb.Step]] = [
    Column("STEP", lambda step: step.script),
    Column("REVISION", lambda step: str(step.revision)),
    Column("STATE", step_state, is_state=True),
    Column("RUN", lambda step: step.run),
]
INPUTS: list[Column[pb.Input]] = [
    Column("INPUT", lambda each: each.name),
    Column("VALUE", lambda each: each.value),
    Column("FROM", lambda each: word(pb.Input.Origin, each.origin)),
]
TRANSITIONS: list[Column[pb.Transition]] = [
    Column("TIME", lambda each: when(each.time)),
    Column("STATE", lambda each: state(each.to), is_state=True),
    Column("CAUSE", lambda each: each.cause),
]
VIOLATIONS: list[Column[pb.Violation]] = [
    Column("REASON", lambda each: each.reason),
    Column("REFUSES", lambda each: "yes" if each.blocking else "no"),
    Column("MESSAGE", lambda each: each.message),
]
