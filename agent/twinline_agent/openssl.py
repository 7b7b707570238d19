"""Keys and certificate requests, made on this host by the openssl command: the standard library can make neither."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from twinline_agent.errors import Unusable

# On standard input, so that no configuration of the host has a say. The gateway ignores the name.
_REQUEST = b"[req]\ndistinguished_name=name\nprompt=no\n[name]\nCN=twinline agent\n"
_TIMEOUT = 60.0


def make_key() -> bytes:
    """A new P-256 private key, PEM. Raises Unusable when there is no openssl."""
    return _run(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])


def make_request(key: Path) -> bytes:
    """A certificate request (PKCS #10, PEM) signed by the private key in the file `key`."""
    return _run(["req", "-new", "-sha256", "-key", str(key), "-config", "/dev/stdin"], _REQUEST)


def _run(arguments: Sequence[str], given: bytes = b"") -> bytes:
    try:
        command = ["openssl", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, timeout=_TIMEOUT, check=False)
    except FileNotFoundError:
        raise Unusable("there is no openssl command on this host: install the openssl package") from None
    except subprocess.TimeoutExpired:
        raise Unusable(f"openssl {arguments[0]} took more than {_TIMEOUT:.0f} s: check the openssl package") from None
    if done.returncode != 0 or not done.stdout.startswith(b"-----BEGIN "):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unusable(f"openssl {arguments[0]} failed: {said[0] if said else 'no reason given'}")
    return done.stdout
