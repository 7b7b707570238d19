"""The local cloud: each machine is a folder and real processes on loopback."""

from twinline_launcher.providers.local.cloud import LocalCloud

__all__ = ["LocalCloud"]
