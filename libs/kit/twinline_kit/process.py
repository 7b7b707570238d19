"""What a process that serves does to itself: its event loop, its limit on open files, its garbage collector."""

import asyncio
import gc
import resource

_FILES = 65_536
"""More connections than one process serves, and few enough for children that close every number there is."""
_COLLECT_AFTER = (50_000, 20, 100)
"""Allocations less deallocations before the youngest are looked at, and how many times more for the older ones."""


def use_uvloop_if_there() -> bool:
    """Make uvloop the event loop of this process where it is installed; says whether it is."""
    try:
        import uvloop
    except ImportError:
        return False
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return True


def allow_many_files() -> int:
    """Raise the limit on open files as far as this user may, to 65,536 at most; answers what it is now.

    Logins come with 1,024, for programs that use select(). Here each agent and each SSH connection is a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def spare_the_collector() -> None:
    """Look for garbage cycles less often. Call it when a service has started.

    A server's many long-lived objects are no garbage, and by default the collector walks all of them again and again
    while a large run allocates; references alone free nearly everything here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
