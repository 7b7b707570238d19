"""What every service reads from its environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from twinline_kit.errors import InvalidArgument
from twinline_kit.server import Listen
from twinline_kit.tls import Identity

_WHY = {
    "missing": "is not set",
    "int_parsing": "is no whole number",
    "float_parsing": "is no number",
    "bool_parsing": "is neither true nor false",
    "extra_forbidden": "is not known",
}
"""What is wrong with a variable, by pydantic's word for it."""


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

    @classmethod
    def read(cls, **values: Any) -> Self:
        """Settings from `values` and, for the rest, the environment. InvalidArgument names all that are wrong."""
        try:
            return cls(**values)
        except ValidationError as error:
            faults = {cls._variable(wrong): _why(wrong) for wrong in error.errors()}
            text = ", ".join(f"{name} {why}" for name, why in faults.items())
            what = "it" if len(faults) == 1 else "them"
            raise InvalidArgument(f"{text}; set {what} in the environment", variable=", ".join(faults)) from None

    def identity(self) -> Identity:
        """What this service shows to others, read from its files."""
        return Identity.load(self.certificate_file, self.key_file, self.ca_file)

    def listen(self) -> Listen:
        """Where this service listens."""
        return Listen(self.api_listen, self.mesh_listen)

    @classmethod
    def _variable(cls, wrong: Mapping[str, Any]) -> str:
        return f"{cls.model_config.get('env_prefix', '')}{'_'.join(map(str, wrong['loc']))}".upper()

    @classmethod
    def service_name(cls) -> str:
        """The service's name, from the prefix of its variables: `keys` of TWINLINE_KEYS_."""
        return cls.model_config.get("env_prefix", "").lower().removeprefix("twinline_").strip("_") or "twinline"


def _why(wrong: Mapping[str, Any]) -> str:
    return _WHY.get(wrong["type"]) or f"cannot be used: {wrong['msg'].lower().removeprefix('value error, ')}"
