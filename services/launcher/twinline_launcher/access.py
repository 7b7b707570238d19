"""Who may call what. A method that is not here is refused."""

from twinline_kit.auth import Access, Grant

_SERVERS = "/twinline.launcher.v1.ServerService"
_CATALOG = "/twinline.launcher.v1.CatalogService"
_READ = frozenset({Grant.OBSERVER})
_WRITE = frozenset({Grant.ADMIN})

SERVERS: Access = {
    f"{_SERVERS}/ApplyServer": _WRITE,
    f"{_SERVERS}/GetServer": _READ,
    f"{_SERVERS}/ListServers": _READ,
    f"{_SERVERS}/PreflightServer": _READ,
    f"{_SERVERS}/LaunchServer": _WRITE,
    f"{_SERVERS}/ResumeServer": _WRITE,
    f"{_SERVERS}/ForceOperationalServer": _WRITE,
    f"{_SERVERS}/TerminateServer": _WRITE,
    f"{_SERVERS}/ListTransitions": _READ,
    f"{_SERVERS}/WatchServers": _READ,
}

CATALOG: Access = {
    f"{_CATALOG}/ApplyImage": _WRITE,
    f"{_CATALOG}/ListImages": _READ,
    f"{_CATALOG}/ApplySecurityGroup": _WRITE,
    f"{_CATALOG}/ListSecurityGroups": _READ,
    f"{_CATALOG}/ApplyTemplate": _WRITE,
    f"{_CATALOG}/ListTemplates": _READ,
    f"{_CATALOG}/ApplyDeployment": _WRITE,
    f"{_CATALOG}/ListDeployments": _READ,
}

ACCESS: Access = {**SERVERS, **CATALOG}
