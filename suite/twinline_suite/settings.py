"""The settings of each service when all of them run in one process on one home."""

import os
from typing import Any

import twinline_agent_gateway.settings
import twinline_executor.settings
import twinline_keys.settings
import twinline_launcher.settings
from twinline_kit.server import Listen
from twinline_suite.home import Home


def keys(home: Home, listen: Listen) -> twinline_keys.settings.Settings:
    """Of the keys service."""
    return twinline_keys.settings.Settings(
        **_common("keys", home, listen),
        kek_file=home.folder / "tokens" / "kek",
        authority_folder=home.authority,
        admin_token_file=home.admin_token,
        observer_token_file=home.observer_token,
    )


def agent_gateway(home: Home, listen: Listen) -> twinline_agent_gateway.settings.Settings:
    """Of the agent gateway."""
    return twinline_agent_gateway.settings.Settings(**_common("agent_gateway", home, listen), keys_address=listen.mesh)


def executor(home: Home, listen: Listen) -> twinline_executor.settings.Settings:
    """Of the executor."""
    return twinline_executor.settings.Settings(
        **_common("executor", home, listen), keys_address=listen.mesh, gateway_address=listen.mesh
    )


def launcher(home: Home, listen: Listen) -> twinline_launcher.settings.Settings:
    """Of the launcher."""
    return twinline_launcher.settings.Settings(
        **_common("launcher", home, listen),
        keys_address=listen.mesh,
        executor_address=listen.mesh,
        gateway_address=listen.mesh,
        local_cloud_folder=home.data / "cloud",
    )


def _common(service: str, home: Home, listen: Listen) -> dict[str, Any]:
    """What every service has. A database that the environment names is taken instead of a file in the home."""
    database = os.environ.get(f"TWINLINE_{service.upper()}_DATABASE_URL") or f"sqlite:///{home.data / service}.db"
    return {
        "api_listen": listen.api,
        "mesh_listen": listen.mesh,
        "database_url": database,
        "certificate_file": home.certificate(service),
        "key_file": home.key(service),
        "ca_file": home.authority / "ca.pem",
    }
