"""The settings of each service when all of them run in one process on one home."""

import os
from typing import Any, TypeVar

import twinline_agent_gateway.settings
import twinline_executor.settings
import twinline_keys.settings
import twinline_launcher.settings
from twinline_kit.server import Listen
from twinline_kit.settings import ServiceSettings
from twinline_suite.home import Home

S = TypeVar("S", bound=ServiceSettings)


def keys(home: Home, listen: Listen) -> twinline_keys.settings.Settings:
    """Of the keys service."""
    return _read(
        twinline_keys.settings.Settings,
        home,
        listen,
        kek_file=home.folder / "tokens" / "kek",
        authority_folder=home.authority,
        admin_token_file=home.admin_token,
        observer_token_file=home.observer_token,
    )


def agent_gateway(home: Home, listen: Listen) -> twinline_agent_gateway.settings.Settings:
    """Of the agent gateway."""
    return _read(
        twinline_agent_gateway.settings.Settings,
        home,
        listen,
        keys_address=listen.mesh,
        enrollment_key_file=home.folder / "tokens" / "enrollment",
    )


def executor(home: Home, listen: Listen) -> twinline_executor.settings.Settings:
    """Of the executor."""
    mesh = listen.mesh
    # The home is locked: nobody else runs under its id, so what a killed suite left is gone on with at once.
    return _read(
        twinline_executor.settings.Settings,
        home,
        listen,
        keys_address=mesh,
        gateway_address=mesh,
        replica=home.replica(),
    )


def launcher(home: Home, listen: Listen) -> twinline_launcher.settings.Settings:
    """Of the launcher."""
    return _read(
        twinline_launcher.settings.Settings,
        home,
        listen,
        keys_address=listen.mesh,
        executor_address=listen.mesh,
        gateway_address=listen.mesh,
        local_cloud_folder=home.data / "cloud",
    )


def _read(kind: type[S], home: Home, listen: Listen, **values: Any) -> S:
    """What the home says, and the environment where it is silent: that may name another database than a file here."""
    service = kind.service_name()
    database = os.environ.get(f"TWINLINE_{service.upper()}_DATABASE_URL")
    return kind.read(
        api_listen=listen.api,
        mesh_listen=listen.mesh,
        database_url=database or f"sqlite:///{home.data / service}.db",
        certificate_file=home.certificate(service),
        key_file=home.key(service),
        ca_file=home.authority / "ca.pem",
        **values,
    )
