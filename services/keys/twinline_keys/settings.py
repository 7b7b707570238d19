"""Settings of the keys service."""

from pathlib import Path

from pydantic_settings import SettingsConfigDict

from twinline_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from TWINLINE_KEYS_* variables."""

    model_config = SettingsConfigDict(env_prefix="TWINLINE_KEYS_", frozen=True, extra="forbid")

    kek_file: Path
    """Holds the key-encryption key. Made at the first start; without it nothing that is stored can be opened again."""

    authority_folder: Path
    """Holds `ca.key` and `ca.pem`, the authority that signs agents' certificates."""

    admin_token_file: Path
    """Holds the token of the person `admin`. Made at the first start; the token in a file that exists is honoured."""

    observer_token_file: Path
    """Holds the token of the person `observer`, likewise."""
