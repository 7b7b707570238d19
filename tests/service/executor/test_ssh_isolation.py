"""An SSH login is the executor's own: nothing of the account that it runs as takes part in it."""

import asyncio
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.service.executor.conftest import Executor, Task
from twinline_executor import ssh_login


async def test_neither_the_operators_configuration_nor_keys_are_used(
    executor: Executor, host: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, asked = tmp_path / "operator", 0

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(f"Host *\n  ProxyCommand touch {home}/asked\n")
    monkeypatch.setenv("HOME", str(home))
    async with await asyncio.start_unix_server(agent, home / "agent.sock"):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent.sock"))
        await executor.add_host(host)  # type: ignore[arg-type]  # the fixture's
        assert (await executor.run("true", "web-1")).state == Task.STATE_SUCCEEDED
    assert not (home / "asked").exists()
    assert asked == 0


async def test_what_is_agreed_with_openssh_is_authenticated_encryption(
    executor: Executor, host: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ciphers: list[str] = []
    log_in = ssh_login.log_in

    async def noted(*arguments: object, **options: object) -> object:
        connection = await log_in(*arguments, **options)  # type: ignore[arg-type]
        ciphers.extend(connection.get_extra_info(f"{way}_cipher") for way in ("send", "recv"))
        return connection

    monkeypatch.setattr("twinline_executor.ssh_line.log_in", noted)
    await executor.add_host(host)  # type: ignore[arg-type]
    await executor.run("true", "web-1")
    assert ciphers == ["aes128-gcm@openssh.com"] * 2


def test_the_ssh_library_has_strict_key_exchange() -> None:
    # 2.14.2 is the first version that no prefix of the handshake can be cut from (CVE-2023-48795).
    assert tuple(map(int, version("asyncssh").split("."))) >= (2, 14, 2)
