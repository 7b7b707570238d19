"""How servers look on the command line."""

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


COLUMNS: list[Column[pb.Server]] = [
    Column("NAME", lambda server: server.name),
    Column("GENERATION", generation),
    Column("STATE", lambda server: state(server.state), is_state=True),
    Column("DEPLOYMENT", lambda server: server.deployment),
    Column("ADDRESS", lambda server: server.current.address),
    Column("COST", cost),
]
DETAILS: list[Column[pb.Server]] = [
    *COLUMNS,
    Column("ID", lambda server: server.id),
    Column("CAUSE", lambda server: server.current.cause),
    Column("STRANDED", stranding),
    Column("PRICE", price),
    Column("TEMPLATE", lambda server: server.next.template),
    Column("IMAGE", lambda server: server.next.image),
    Column("CLOUD KEY", lambda server: server.next.cloud_key),
    Column("SECURITY GROUPS", lambda server: ", ".join(server.next.security_groups)),
    Column("TAGS", lambda server: ", ".join(server.next.tags)),
    Column("INSTANCE", lambda server: server.current.id),
    Column("AGENT", lambda server: server.current.agent_id),
    Column("LAUNCHED", lambda server: when(server.current.launch_time)),
    Column("TERMINATED", lambda server: when(server.current.terminate_time)),
]
STEPS: list[Column[pb.Step]] = [
    Column("STEP", lambda step: step.script),
    Column("REVISION", lambda step: str(step.revision)),
    Column("OUTCOME", lambda step: step.outcome, is_state=True),
    Column("RUN", lambda step: step.run),
]
INPUTS: list[Column[pb.Input]] = [
    Column("INPUT", lambda each: each.name),
    Column("VALUE", lambda each: each.value),
    Column("FROM", lambda each: each.origin),
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
