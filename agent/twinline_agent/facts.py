"""What the agent tells of its host."""

import platform
import socket
from pathlib import Path


def boot_id() -> str:
    """Which boot of the host this is; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def facts() -> dict[str, str]:
    """Short facts: host name, operating system, kernel, processor."""
    return {
        "hostname": socket.gethostname(),
        "os": _os_name(),
        "kernel": platform.release(),
        "arch": platform.machine(),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())[:100]
    except OSError:
        return platform.system()
