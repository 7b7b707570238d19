"""What the agent tells of its host."""

import platform
import socket


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
