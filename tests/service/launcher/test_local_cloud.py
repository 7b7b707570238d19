"""The local cloud alone: real processes, a real sshd."""

import asyncio
import json
import os
import stat
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from tests.peers.eventually import eventually
from twinline_kit import clock
from twinline_kit.errors import Error, Unavailable
from twinline_launcher.models import Generation
from twinline_launcher.providers import LaunchSpec, Machine, Power
from twinline_launcher.providers.local import LocalCloud, processes, sshd
from twinline_launcher.providers.local.folder import Folder
from twinline_launcher.providers.local.processes import Process

KEY = asyncssh.generate_private_key("ssh-ed25519")
# Of this process alone: machines are found by their name, and tests run side by side.
TOKEN = f"machine-{os.getpid()}"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cloud"
    for record in (tmp_path / "cloud" / "instances").glob("*/machine.json"):
        processes.end_machine(record.parent.name)


@pytest.fixture
def another(folder: Path) -> Iterator[Callable[..., LocalCloud]]:
    """Makes control planes of the one cloud."""
    made: list[LocalCloud] = []

    def make(sshd_program: str = "") -> LocalCloud:
        made.append(LocalCloud(folder, clock=clock.now, sshd_program=sshd_program))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def cloud(another: Callable[..., LocalCloud]) -> LocalCloud:
    return another()


def spec(generation: Generation = Generation.V4, token: str = TOKEN, **more: object) -> LaunchSpec:
    public_key = KEY.export_public_key().decode().strip()
    made = LaunchSpec(token, "web-1", generation, "image", "local-small", public_key, ("ssh",))
    return replace(made, **more)  # type: ignore[arg-type]


async def opened(cloud: LocalCloud, **more: object) -> Machine:
    """A v4 machine with port 22 open."""
    await cloud.apply_group("ssh", [22])
    return await cloud.launch(spec(**more))  # type: ignore[arg-type]


async def described(cloud: LocalCloud, token: str = TOKEN) -> Machine:
    return (await cloud.describe([token]))[token]


def login(machine: Machine) -> "asyncssh.SSHClientConnectionOptions":
    host, _, port = machine.address.rpartition(":")
    known = asyncssh.import_known_hosts(f"[{host}]:{port} {machine.host_key}")
    return asyncssh.SSHClientConnectionOptions(
        host=host, port=int(port), username=machine.username, client_keys=[KEY], known_hosts=known, config=None
    )


async def ssh(machine: Machine, command: str) -> str:
    options = login(machine)
    async with asyncssh.connect(options.host, options.port, options=options) as connection:
        return str((await connection.run(command, check=True)).stdout).strip()


async def is_open(machine: Machine) -> bool:
    host, _, port = machine.address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def test_a_v4_machine_lets_the_launch_key_in_and_has_its_own_home(cloud: LocalCloud, folder: Path) -> None:
    machine = await opened(cloud)
    assert machine.power is Power.RUNNING
    assert await ssh(machine, "echo $HOME $TWINLINE_INSTANCE") == f"{folder}/instances/{TOKEN}/home {TOKEN}"


async def test_a_repeated_launch_finds_the_machine(cloud: LocalCloud) -> None:
    first = await opened(cloud)
    assert await cloud.launch(spec()) == first == await described(cloud)
    assert len([each for each in processes.of_machine(TOKEN) if b"twinline-machine" in command(each)]) == 1


async def test_launches_at_once_make_one_machine(another: Callable[..., LocalCloud]) -> None:
    machines = await asyncio.gather(*(another().launch(spec()) for _ in range(5)))
    assert len({machine.address for machine in machines}) == 1
    assert len([each for each in processes.of_machine(TOKEN) if b"twinline-machine" in command(each)]) == 1


async def test_machines_outlive_the_suite_and_are_found_again(another: Callable[..., LocalCloud]) -> None:
    before = another()
    machine = await opened(before)
    before.close()
    assert await described(another()) == machine
    assert await ssh(machine, "echo still here") == "still here"


async def test_port_22_follows_the_security_groups_and_sessions_stay(cloud: LocalCloud) -> None:
    machine = await cloud.launch(spec())
    assert not await is_open(machine)
    await cloud.apply_group("ssh", [22, 80])
    options = login(machine)
    async with asyncssh.connect(options.host, options.port, options=options) as connection:
        await cloud.apply_group("ssh", [80])
        assert not await is_open(machine)
        assert (await connection.run("echo inside")).stdout == "inside\n"
        await cloud.terminate(TOKEN)
        await asyncio.wait_for(connection.wait_closed(), 5)


async def test_a_dead_ssh_server_is_started_again(cloud: LocalCloud) -> None:
    machine = await opened(cloud)
    assert processes.end_servers(TOKEN)
    assert not await is_open(machine)
    again = await described(cloud)
    assert (again.address, await is_open(again)) == (machine.address, True)


@pytest.mark.parametrize(
    "end", [lambda cloud: cloud.apply_group("ssh", []), lambda cloud: cloud.terminate(TOKEN)], ids=["closed", "ended"]
)
async def test_an_ssh_server_whose_watcher_was_killed_ends_as_any_other(
    cloud: LocalCloud, end: Callable[[LocalCloud], Awaitable[object]]
) -> None:
    machine = await opened(cloud)
    await orphaned()
    assert await is_open(machine)
    await end(cloud)
    assert not await is_open(machine)
    assert not processes.servers(TOKEN)


async def test_an_ssh_server_whose_watcher_was_killed_gives_its_port_to_the_next(cloud: LocalCloud) -> None:
    machine = await opened(cloud)
    before = await orphaned()
    assert await described(cloud) == machine
    assert not before.is_alive()
    assert await ssh(machine, "echo new") == "new"


async def test_a_session_that_outlived_its_killed_ssh_server_ends_with_the_machine(cloud: LocalCloud) -> None:
    options = login(await opened(cloud))
    async with asyncssh.connect(options.host, options.port, options=options) as connection:
        assert processes.end_servers(TOKEN)
        await described(cloud)
        await cloud.terminate(TOKEN)
        await asyncio.wait_for(connection.wait_closed(), 5)


async def test_an_ssh_server_that_starts_too_late_leaves_nothing_behind(
    another: Callable[..., LocalCloud], tmp_path: Path
) -> None:
    wait = f"until [ -e {tmp_path}/now ]; do sleep 0.05; done"
    late = program(tmp_path / "late-sshd", f'{wait}\nexec {sshd.find_program("")} "$@"')
    cloud = another(str(late))
    with pytest.raises(Unavailable, match="does not start"):
        await opened(cloud)
    assert not processes.servers(TOKEN)
    (tmp_path / "now").touch()
    machine = await described(cloud)
    assert await ssh(machine, "echo at last") == "at last"
    await cloud.apply_group("ssh", [])
    assert not processes.servers(TOKEN)


async def test_an_ssh_keygen_that_hangs_is_given_up(
    cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "ssh-keygen", "exec sleep 1000")
    with monkeypatch.context() as hung:
        hung.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        with pytest.raises(Unavailable, match="ssh-keygen made no key"):
            await cloud.launch(spec())
    assert (await cloud.launch(spec())).power is Power.RUNNING


async def test_machines_that_another_process_works_at_hold_up_nobody_else(cloud: LocalCloud, folder: Path) -> None:
    tokens = [f"{TOKEN}-{number}" for number in range(40)]
    with ExitStack() as held:
        for token in tokens:
            held.enter_context(Folder.of(folder / "instances", token).locked())
        first, *others = [asyncio.ensure_future(cloud.launch(spec(token=token))) for token in tokens]
        await asyncio.wait_for(asyncio.to_thread(lambda: None), 3)
        for each in others:
            each.cancel()
        with pytest.raises(Unavailable, match="another process works at"):
            await first
    # Launches that nobody waits for any more may have got the locks just now.
    await asyncio.gather(*(cloud.terminate(token) for token in tokens))
    assert not any(processes.of_machine(token) for token in tokens)


async def test_a_machine_that_another_process_works_at_is_told_as_it_was_written(
    cloud: LocalCloud, folder: Path
) -> None:
    machine = await opened(cloud)
    with Folder.of(folder / "instances", TOKEN).locked():
        assert await described(cloud) == machine


async def test_many_are_described_at_once_and_what_was_never_launched_is_left_out(cloud: LocalCloud) -> None:
    tokens = [TOKEN, f"{TOKEN}-b"]
    machines = [await cloud.launch(spec(token=token)) for token in tokens]
    assert await cloud.describe([*tokens, "nobody"]) == dict(zip(tokens, machines, strict=True))


async def test_a_machine_whose_ssh_server_does_not_start_is_told_and_hides_no_other(
    another: Callable[..., LocalCloud],
) -> None:
    machine = await another().launch(spec())
    broken = another("/bin/false")
    await broken.apply_group("ssh", [22])
    assert await broken.describe([TOKEN]) == {TOKEN: machine}


async def test_terminate_ends_detached_processes_and_keeps_only_the_bill(cloud: LocalCloud, folder: Path) -> None:
    machine = await opened(cloud)
    await ssh(machine, "setsid sh -c 'sleep 1000 & env -i sleep 1001' >/dev/null 2>&1 </dev/null & sleep 0.2")
    assert len([each for each in processes.of_machine(TOKEN) if b"sleep\x00100" in command(each)]) >= 2
    ended = await cloud.terminate(TOKEN)
    assert (ended.power, ended.run_time) == (Power.GONE, machine.run_time)
    assert not processes.of_machine(TOKEN)
    assert sorted(each.name for each in (folder / "instances" / TOKEN).iterdir()) == ["console", "machine.json"]
    assert await cloud.terminate(TOKEN) == ended == await described(cloud)


async def test_a_launch_that_comes_after_the_end_makes_nothing(cloud: LocalCloud) -> None:
    await cloud.terminate(TOKEN)
    assert (await cloud.launch(spec())).power is Power.GONE
    assert not processes.of_machine(TOKEN)


async def test_a_machine_whose_processes_died_is_gone_and_bills_no_more(cloud: LocalCloud) -> None:
    machine = await opened(cloud)
    processes.end_machine(TOKEN)
    found = await described(cloud)
    assert (found.power, found.run_time) == (Power.GONE, machine.run_time)
    assert found.end_time


async def test_after_a_boot_of_the_host_the_machine_is_gone_and_strangers_are_left_alone(
    cloud: LocalCloud, folder: Path
) -> None:
    await opened(cloud)
    processes.end_machine(TOKEN)
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        record = folder / "instances" / TOKEN / "machine.json"
        content = json.loads(record.read_text())
        taken = next(each for each in processes.of_machine("", [known(stranger.pid)]))
        content |= {"boot_id": "another", "body": {"pid": taken.pid, "start": taken.start}}
        record.write_text(json.dumps(content))
        found = await described(cloud)
        assert found.power is Power.GONE
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_process_id_that_is_used_again_is_never_killed() -> None:
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        before = Process(stranger.pid, known(stranger.pid).start - 1)
        processes.kill(before)
        assert processes.end_machine("nobody", [before])
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_launch_that_was_cut_short_is_finished_by_the_next_look(
    another: Callable[..., LocalCloud], folder: Path
) -> None:
    await opened(another())
    processes.end_machine(TOKEN)
    record = folder / "instances" / TOKEN / "machine.json"
    accepted = json.loads(record.read_text()) | {"run_time": None, "body": None, "sshd": None, "boot_id": ""}
    record.write_text(json.dumps(accepted))
    found = await described(another())
    assert await ssh(found, "echo up") == "up"


async def test_a_port_that_somebody_took_meanwhile_is_given_up_for_another(cloud: LocalCloud) -> None:
    machine = await cloud.launch(spec())
    server = await asyncio.start_server(lambda *_: None, *machine.address.split(":"))
    async with server:
        await cloud.apply_group("ssh", [22])
        found = await described(cloud)
        assert found.address != machine.address
        assert await ssh(found, "echo elsewhere") == "elsewhere"


async def test_a_v5_machine_restarts_its_agent_listens_nowhere_and_hides_its_user_data(
    cloud: LocalCloud, folder: Path
) -> None:
    machine = await cloud.launch(spec(Generation.V5, user_data=b"{}"))
    path = folder / "instances" / TOKEN / "user-data.json"
    assert (machine.address, stat.S_IMODE(path.stat().st_mode)) == ("", 0o600)
    console = folder / "instances" / TOKEN / "console"
    await eventually(lambda: console.read_text().count("user-data") >= 2)
    await cloud.terminate(TOKEN)
    assert not path.exists()


@pytest.mark.parametrize("generation", [Generation.V4, Generation.V5])
async def test_a_machine_has_nothing_of_who_runs_the_cloud(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, generation: Generation
) -> None:
    monkeypatch.setenv("PATH", f"/mine:{os.environ['PATH']}")
    monkeypatch.setenv("LANG", "tlh_KX.UTF-8")
    await cloud.launch(spec(generation, user_data=b"{}"))
    body = next(each for each in processes.of_machine(TOKEN) if b"twinline-machine" in command(each))
    environment = Path(f"/proc/{body.pid}/environ").read_bytes().split(b"\0")
    names = {each.partition(b"=")[0].decode() for each in environment if each}
    assert names - {"PYTHONPATH"} == {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TWINLINE_INSTANCE"}
    assert not any(b"/mine" in each for each in environment)


async def test_a_machine_has_a_umask_of_its_own_and_a_private_console(cloud: LocalCloud, folder: Path) -> None:
    before = os.umask(0o000)
    try:
        await cloud.launch(spec())
    finally:
        os.umask(before)
    body = next(each for each in processes.of_machine(TOKEN) if b"twinline-machine" in command(each))
    assert "Umask:\t0022\n" in Path(f"/proc/{body.pid}/status").read_text()
    files = [path for path in (folder / "instances" / TOKEN).iterdir() if not path.name.endswith(".pub")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


async def test_without_sshd_a_v4_launch_says_what_to_install(folder: Path) -> None:
    with pytest.raises(Error, match="apt-get install openssh-server") as refusal:
        await LocalCloud(folder, clock=clock.now, sshd_program="/no/such/sshd").launch(spec())
    assert refusal.value.reason == "SSHD_MISSING"


@pytest.mark.parametrize("token", ["../up", "", "A", "x" * 65])
async def test_a_token_that_is_no_folder_name_is_refused(cloud: LocalCloud, token: str) -> None:
    with pytest.raises(Error):
        await cloud.launch(spec(token=token))


async def orphaned() -> Process:
    """Kill what watches the machine's SSH server, and that alone; returns the server."""
    watcher = next(each for each in processes.servers(TOKEN) if b"twinline-sshd" in command(each))
    processes.kill(watcher)
    await eventually(lambda: not watcher.is_alive())
    # Who looked whether it listens may still be served, by a child of it.
    await eventually(lambda: len(processes.servers(TOKEN)) == 1)
    return processes.servers(TOKEN)[0]


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def command(process: Process) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return b""


def known(pid: int) -> Process:
    stat_line = Path(f"/proc/{pid}/stat").read_text()
    return Process(pid, int(stat_line.rpartition(")")[2].split()[19]))
