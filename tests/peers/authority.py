"""A certificate authority for one test session, and the files that a service under test reads."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from twinline_kit.tls import Authority, Identity, agent_uri, service_uri

SERVER_NAMES = ("localhost", "127.0.0.1")
LIFETIME = timedelta(hours=6)


class Certificates:
    """Issues an identity for any service or agent, as the suite's own authority would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Holds the authority's key and certificate, as a service that signs expects them."""
        self.authority = Authority.create(folder)
        self.ca = self.authority.ca_pem
        self._services: dict[str, Identity] = {}

    def service(self, name: str) -> Identity:
        """The identity of the service `name`, valid as client and as server on loopback."""
        if name not in self._services:
            self._services[name] = self.authority.issue(uri=service_uri(name), names=SERVER_NAMES, lifetime=LIFETIME)
        return self._services[name]

    def agent(self, agent_id: str) -> Identity:
        """The identity of the agent `agent_id`."""
        return self.authority.issue(uri=agent_uri(agent_id), lifetime=LIFETIME)

    def settings(self, service: str, folder: Path) -> dict[str, Any]:
        """The settings that every service has: free loopback ports, and certificate files below `folder`."""
        identity = self.service(service)
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "certificate_file": (folder / f"{service}.pem", identity.certificate),
            "key_file": (folder / f"{service}.key", identity.key),
            "ca_file": (folder / "ca.pem", identity.ca),
        }
        for path, content in files.values():
            path.write_bytes(content)
        return {
            "api_listen": "127.0.0.1:0",
            "mesh_listen": "127.0.0.1:0",
            **{field: path for field, (path, _) in files.items()},
        }
