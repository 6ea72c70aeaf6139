"""``make interop``: every server with every client. The exit status is 1 if anything is broken.

``--publish`` writes docs/interop.md, for which every peer has to take part.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Awaitable, Callable

import trio

from . import rules
from .matrix import Outcome, run_client, run_pair, run_server
from .page import publish
from .peers import PEERS, Peer


def main() -> int:
    parser = argparse.ArgumentParser(prog="make interop", description=__doc__)
    parser.add_argument("--publish", action="store_true", help="write the tables of docs/interop.md")
    parser.add_argument("--peers", default=",".join(PEERS), help="who takes part, of %(default)s")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="how many pairs at a time: %(default)s"
    )
    arguments = parser.parse_args()
    chosen = arguments.peers.split(",")
    if unknown := {*chosen} - {*PEERS}:
        parser.error(f"there is no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    left_out = {name: why for name in chosen if (why := PEERS[name].left_out())}
    for name, why in left_out.items():
        print(f"{name} is left out: {why}")
    taking_part = [name for name in chosen if name not in left_out]
    outcomes = trio.run(run, taking_part, arguments.jobs)
    broken = [outcome for outcome in outcomes if outcome.kept is False]
    for outcome in broken:
        print(outcome, file=sys.stderr)
    if arguments.publish:
        if broken or taking_part != [*PEERS]:
            print(
                "nothing is published: all peers have to take part, and nothing may be broken",
                file=sys.stderr,
            )
            return 1
        publish(outcomes)
    tried = sum(outcome.kept is not None for outcome in outcomes)
    print(f"{tried - len(broken)} passed, {len(broken)} failed, {len(outcomes) - tried} skipped")
    return 1 if broken else 0


async def run(names: list[str], jobs: int) -> list[Outcome]:
    """Run everything, so many things at a time."""
    outcomes: list[Outcome] = []
    limiter = trio.CapacityLimiter(jobs)

    async def add(what: str, function: Callable[..., Awaitable[list[Outcome]]], *peers: Peer) -> None:
        async with limiter:
            more = await function(*peers)
        outcomes.extend(more)
        tried = [one.kept for one in more if one.kept is not None]
        print(f"{what}: {sum(tried)} of {len(tried)}", flush=True)

    async with trio.open_nursery() as nursery:
        for server, client in itertools.product(names, repeat=2):
            what = f"server {server}, client {client}"
            nursery.start_soon(add, what, run_pair, PEERS[server], PEERS[client])
        for name in names:
            nursery.start_soon(add, f"server {name} alone", run_server, PEERS[name])
            nursery.start_soon(add, f"client {name} alone", run_client, PEERS[name])
            nursery.start_soon(add, f"server {name} by the rules", rules.run_server, PEERS[name])
            nursery.start_soon(add, f"client {name} by the rules", rules.run_client, PEERS[name])
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
