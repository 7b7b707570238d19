"""`twinline servers`: definitions, and the machine that each may have now."""

import sys
import uuid
from collections.abc import Iterable
from functools import partial
from typing import Annotated

import grpc.aio
import typer

from twinline.launcher.v1 import catalog_pb2, catalog_pb2_grpc
from twinline.launcher.v1 import servers_pb2 as pb
from twinline.launcher.v1 import servers_pb2_grpc as rpc
from twinline_cli import server_view as view
from twinline_cli.acting import Acted, act_on_each
from twinline_cli.commands import command, noun
from twinline_cli.connection import connected
from twinline_cli.errors import CliError, ExitCode, say
from twinline_cli.formats import Format
from twinline_cli.naming import suggesting
from twinline_cli.options import Inputs, Output, parse_inputs, parse_limit
from twinline_cli.output import emit, emit_each, show_list, show_one, to_data, when, write_table
from twinline_cli.paging import every
from twinline_cli.reconnecting import again_and_again
from twinline_cli.terminal import colour, escape, state_colour
from twinline_cli.waiting import changes, suite_away, until_at_rest
from twinline_kit.errors import Unavailable

_PATIENCE = "15m"

app = noun("Servers, and the machine that each may have now.")

Server = Annotated[str, typer.Argument(help="A server's name or id.")]
Servers = Annotated[list[str], typer.Argument(help="Servers' names or ids.")]
Wait = Annotated[bool, typer.Option("--wait", help="Come back only when it is done.")]
Patience = Annotated[
    str | None, typer.Option("--timeout", help=f"How long --wait waits, such as 90s; {_PATIENCE} when absent.")
]


@command(app, "list")
async def list_all(
    deployment: Annotated[str, typer.Option(help="Only this deployment's.")] = "", output: Output = Format.TABLE
) -> None:
    """List the servers, their states and what they cost."""
    async with connected() as channel, suggesting(deployment, lambda: _deployments(channel)):
        request = pb.ListServersRequest(deployment=deployment)
        servers = await every(rpc.ServerServiceStub(channel).ListServers, request, "servers")
    where = f"no servers in deployment {deployment}" if deployment else "no servers yet"
    show_list(servers, view.COLUMNS, output, empty=f"{where}; define some with `twinline apply -f FILE`")


@command(app, "show")
async def show(server: Server, output: Output = Format.TABLE) -> None:
    """Show one server: its machine, its steps, its inputs and every state it went through."""
    async with connected() as channel, suggesting(server, lambda: names(channel)):
        stub = rpc.ServerServiceStub(channel)
        found = await stub.GetServer(pb.GetServerRequest(server=server))
        history = await every(stub.ListTransitions, pb.ListTransitionsRequest(server=server), "transitions")
    if output is not Format.TABLE:
        emit({**to_data(found), "transitions": [to_data(each) for each in history]}, output)
        return
    show_one(found, view.DETAILS, output)
    parts = ((view.STEPS, found.current.steps), (view.INPUTS, found.current.inputs), (view.TRANSITIONS, history))
    for columns, items in parts:
        if items:
            sys.stdout.write("\n")
            write_table(columns, items)


@command(app, "preflight")
async def preflight(server: Server, inputs: Inputs = None, output: Output = Format.TABLE) -> ExitCode:
    """Tell what would go wrong, before money is spent. Exits with 3 when a launch would be refused."""
    request = pb.PreflightServerRequest(server=server, inputs=parse_inputs(inputs))
    async with connected() as channel, suggesting(server, lambda: names(channel)):
        found = (await rpc.ServerServiceStub(channel).PreflightServer(request)).violations
    show_list(found, view.VIOLATIONS, output, empty=f"nothing stands in the way of launching {server}")
    return ExitCode.REFUSED if any(each.blocking for each in found) else ExitCode.SUCCEEDED


@command(app, "launch")
async def launch(
    servers: Servers,
    inputs: Inputs = None,
    force: Annotated[bool, typer.Option("--force", help="Launch in spite of what preflight found.")] = False,
    wait: Wait = False,
    timeout: Patience = None,
    output: Output = Format.TABLE,
) -> ExitCode:
    """Launch servers: ask the cloud for machines and boot them."""
    patience, values = _patience(wait, timeout), parse_inputs(inputs)
    async with connected() as channel:
        stub = rpc.ServerServiceStub(channel)
        found = await _all_of(channel, servers)
        if len(found) > 1 and not force:
            await _refuse_what_cannot_be_launched(channel, found, values)
        done = await act_on_each(
            found,
            lambda server: stub.LaunchServer(
                pb.LaunchServerRequest(server=server.id, request_id=str(uuid.uuid4()), force=force, inputs=values)
            ),
        )
        return await _finish(channel, done, pb.SERVER_STATE_OPERATIONAL, patience, output)


@command(app, "resume")
async def resume(
    servers: Servers, wait: Wait = False, timeout: Patience = None, output: Output = Format.TABLE
) -> ExitCode:
    """Go on with the boot of stranded servers, from the step that failed, on the same machines."""
    patience = _patience(wait, timeout)
    async with connected() as channel:
        stub = rpc.ServerServiceStub(channel)
        done = await act_on_each(
            await _all_of(channel, servers),
            lambda server: stub.ResumeServer(pb.ResumeServerRequest(server=server.id, request_id=str(uuid.uuid4()))),
        )
        return await _finish(channel, done, pb.SERVER_STATE_OPERATIONAL, patience, output)


@command(app, "force-operational")
async def force_operational(server: Server, output: Output = Format.TABLE) -> None:
    """Declare a stranded server operational. No script runs."""
    async with connected() as channel, suggesting(server, lambda: names(channel)):
        request = pb.ForceOperationalServerRequest(server=server, request_id=str(uuid.uuid4()))
        changed = await rpc.ServerServiceStub(channel).ForceOperationalServer(request)
    show_list([changed], view.COLUMNS, output, empty="")


@command(app, "terminate")
async def terminate(
    servers: Servers, wait: Wait = False, timeout: Patience = None, output: Output = Format.TABLE
) -> ExitCode:
    """Decommission servers and end their machines."""
    patience = _patience(wait, timeout)
    async with connected() as channel:
        stub, found = rpc.ServerServiceStub(channel), await _all_of(channel, servers)
        if ended := [each.name for each in found if each.state == pb.SERVER_STATE_TERMINATED]:
            say(f"{', '.join(ended)} {'was' if len(ended) == 1 else 'were'} terminated already")
        done = await act_on_each(
            found,
            lambda server: stub.TerminateServer(
                pb.TerminateServerRequest(server=server.id, request_id=str(uuid.uuid4()))
            ),
        )
        return await _finish(channel, done, pb.SERVER_STATE_TERMINATED, patience, output)


@command(app, "watch")
async def watch(
    servers: Annotated[list[str] | None, typer.Argument(help="Servers' names or ids; all when absent.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the state of servers, then each step as it is taken, until Ctrl-C.

    With -o json or yaml, one line or document for each.
    """
    seen: dict[str, pb.Transition] = {}
    async with connected() as channel:
        wanted = [server.name for server in await _all_of(channel, servers or ())]
        if not wanted:
            await names(channel)  # a suite that is not there at all is not waited for
        try:
            async for change in again_and_again(partial(changes, channel, wanted)):
                _print_steps(change.server.name, _news(change, seen), output)
        except Unavailable as error:
            raise suite_away(wanted) from error


def _patience(wait: bool, timeout: str | None) -> float | None:
    """Seconds to wait; None when nobody waits."""
    if not wait:
        if timeout is not None:
            raise CliError("--timeout is how long --wait waits; give --wait too")
        return None
    return parse_limit("--timeout", timeout or _PATIENCE)


async def names(channel: grpc.aio.Channel) -> Iterable[str]:
    """The names of all servers."""
    servers = await every(rpc.ServerServiceStub(channel).ListServers, pb.ListServersRequest(), "servers")
    return [server.name for server in servers]


async def _deployments(channel: grpc.aio.Channel) -> Iterable[str]:
    stub = catalog_pb2_grpc.CatalogServiceStub(channel)
    found = await every(stub.ListDeployments, catalog_pb2.ListDeploymentsRequest(), "deployments")
    return [deployment.name for deployment in found]


async def _all_of(channel: grpc.aio.Channel, wanted: Iterable[str]) -> list[pb.Server]:
    """Every server that was named, each once: a misspelt name is found before anything is done."""
    stub, found = rpc.ServerServiceStub(channel), {}
    for name in wanted:
        async with suggesting(name, lambda: names(channel)):
            server = await stub.GetServer(pb.GetServerRequest(server=name))
        found[server.id] = server
    return list(found.values())


async def _refuse_what_cannot_be_launched(
    channel: grpc.aio.Channel, servers: list[pb.Server], inputs: dict[str, str]
) -> None:
    """Several are launched only when none of them would be refused."""
    stub, refused = rpc.ServerServiceStub(channel), []
    for server in servers:
        request = pb.PreflightServerRequest(server=server.id, inputs=inputs)
        for each in (await stub.PreflightServer(request)).violations:
            if each.blocking:
                refused.append(f"{server.name}: {each.reason}: {each.message}")
    if refused:
        raise CliError(f"nothing was launched; {'; '.join(refused)}", ExitCode.REFUSED)


async def _finish(
    channel: grpc.aio.Channel,
    done: Acted,
    wanted: pb.ServerState.ValueType,
    patience: float | None,
    form: Format,
) -> ExitCode:
    """Wait if asked to, then show the servers as they are. What failed before decides the exit code."""
    if patience is None:
        show_list(done.servers, view.COLUMNS, form, empty="nothing was done")
        if form is Format.TABLE and any(server.moving for server in done.servers):
            say("asked for; follow it with `twinline servers watch`")
        return done.code()
    code = ExitCode.SUCCEEDED
    if done.servers:
        code = await until_at_rest(channel, [server.name for server in done.servers], wanted, patience)
    stub = rpc.ServerServiceStub(channel)
    now = [await stub.GetServer(pb.GetServerRequest(server=server.id)) for server in done.servers]
    show_list(now, view.COLUMNS, form, empty="nothing was done")
    return done.code(code)


def _news(change: pb.WatchServersResponse, seen: dict[str, pb.Transition]) -> list[pb.Transition]:
    """The steps that were not `seen`; of a server's first ones only how it came to its state.

    Of one that was never launched, that is the state alone. A stream that is opened anew tells all steps again.
    """
    steps, last = list(change.transitions), seen.get(change.server.id)
    if last is None:
        steps = steps[-1:] or [pb.Transition(to=change.server.state)]
    elif last in steps:
        steps = steps[steps.index(last) + 1 :]
    if steps:
        seen[change.server.id] = steps[-1]
    return steps


def _print_steps(server: str, steps: Iterable[pb.Transition], form: Format) -> None:
    if form is not Format.TABLE:
        emit_each(({"server": server, **to_data(step)} for step in steps), form)
        return
    for step in steps:
        _print_step(server, step)


def _print_step(server: str, step: pb.Transition) -> None:
    word = view.state(step.to)
    padding = " " * max(0, 22 - len(word))
    sys.stdout.write(
        f"{when(step.time):20}  {escape(server)}  {colour(word, state_colour(word))}{padding}  {escape(step.cause)}\n"
    )
    sys.stdout.flush()
