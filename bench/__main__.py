"""`make bench`: the suite next to the bare transports, in turn, on this machine.

Timings drift by twice and more from run to run of the same thing; only the ratios within one run mean anything. Ends
with status 1 when a ratio is above its floor.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench import agents, ssh
from bench.installation import installed
from bench.rounds import Comparison

FLOOR = 2.5
AGENT_ROUNDS = 3
"""Rounds with agents for each with SSH hosts: they are short, and vary more."""


async def measure(options: argparse.Namespace) -> list[Comparison]:
    """Run what was asked for; print as it goes."""
    done: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="twinline-bench-") as folder:
        async with installed() as suite:
            if options.agents:
                rounds = AGENT_ROUNDS * options.rounds
                compared, storm = await agents.measure(suite, Path(folder), count=options.agents, rounds=rounds)
                done.append(compared)
                print(*storm, *compared.lines(), sep="\n", flush=True)
            if options.ssh:
                async for compared in ssh.measure(suite, Path(folder), count=options.ssh, rounds=options.rounds):
                    done.append(compared)
                    print(*compared.lines(), sep="\n", flush=True)
    return done


def main() -> None:
    """Measure, print, and say which ratios are above the floor."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--agents", type=int, default=1000, help="simulated agents; 0 leaves them out")
    parser.add_argument("--ssh", type=int, default=50, help="SSH hosts; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of rounds; thrice with agents")
    done = asyncio.run(measure(parser.parse_args()))
    floored = [compared for compared in done if not compared.note]
    above = [compared for compared in floored if max(compared.wall(), compared.cpu()) > FLOOR]
    for compared in above:
        print(f"above the floor of {FLOOR}: {compared.title}", file=sys.stderr)
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
