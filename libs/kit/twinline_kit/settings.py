"""What every service reads from its environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from twinline_kit.server import Listen
from twinline_kit.tls import Identity


class ServiceSettings(BaseSettings):
    """The settings all services have. Each service subclasses this with its own prefix, TWINLINE_<SERVICE>_."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_listen: str = "127.0.0.1:0"
    """host:port for people (TLS and bearer tokens) and for enrolment."""

    mesh_listen: str = "127.0.0.1:0"
    """host:port for services and agents (mutual TLS)."""

    database_url: str = Field(repr=False)
    """sqlite:///path or postgresql://user:password@host/name; the service's own database."""

    certificate_file: Path
    """This service's certificate chain, PEM."""

    key_file: Path
    """The certificate's private key, PEM."""

    ca_file: Path
    """The CA that signed our services and agents, PEM."""

    keys_address: str = ""
    """host:port of the keys service's mesh port; empty for keys itself."""

    def identity(self) -> Identity:
        """What this service shows to others, read from its files."""
        return Identity.load(self.certificate_file, self.key_file, self.ca_file)

    def listen(self) -> Listen:
        """Where this service listens."""
        return Listen(self.api_listen, self.mesh_listen)

    def service_name(self) -> str:
        """The service's name, from the prefix of its variables: `keys` of TWINLINE_KEYS_."""
        return self.model_config.get("env_prefix", "").lower().removeprefix("twinline_").strip("_") or "twinline"
