"""docs/interop.md: the tables that a run of the whole matrix writes, and reading them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from trio_ipc.testing import CLIENT_RULES, SERVER_RULES

from . import alone
from .matrix import Outcome
from .peers import PEERS, ROOT
from .scenarios import SCENARIOS

PAGE: Final = ROOT / "docs" / "interop.md"
_BEGIN: Final = "<!-- begin: make interop ARGS=--publish -->\n"
_END: Final = "<!-- end -->\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns but the first ones are narrow."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(outcomes: Sequence[Outcome]) -> str:
    """All that is between the markers of the page."""
    names = [*PEERS]
    by_pair = [
        [
            f"`{server}`",
            *(
                _sum([one for one in outcomes if (one.server, one.client) == (server, client)])
                for client in names
            ),
        ]
        for server in names
    ]
    by_scenario = [
        [one.name, one.shows, _sum([outcome for outcome in outcomes if outcome.scenario == one.name])]
        for one in SCENARIOS
    ]
    parts = [
        "### Servers (rows) with clients (columns)\n",
        table(["", *(f"`{name}`" for name in names)], by_pair),
        "### What each pair does\n",
        table(["scenario", "what it shows", "pairs"], by_scenario),
    ]
    for title, kind in (
        ("### Each server with bare bytes\n", alone.OF_SERVERS),
        ("### Each client with bare bytes\n", alone.OF_CLIENTS),
    ):
        side = "server" if kind is alone.OF_SERVERS else "client"
        rows = [
            [
                one.name,
                one.shows,
                *(_said(outcomes, one.name, side, name) for name in names),
            ]
            for one in kind
        ]
        parts += [title, table(["scenario", "what it shows", *(f"`{name}`" for name in names)], rows)]
    for title, known, side in (
        ("### Each server by the rules\n", SERVER_RULES, "server"),
        ("### Each client by the rules\n", CLIENT_RULES, "client"),
    ):
        rows = [
            [number, rule.says, *(_said(outcomes, number, side, name) for name in names)]
            for number, rule in known.items()
        ]
        parts += [title, table(["rule", "what is asked", *(f"`{name}`" for name in names)], rows)]
    return "\n".join(parts)


def _sum(outcomes: Sequence[Outcome]) -> str:
    tried = [one for one in outcomes if one.kept is not None]
    kept = sum(one.kept is True for one in tried)
    return f"{kept} of {len(tried)}"


def _said(outcomes: Sequence[Outcome], scenario: str, side: str, name: str) -> str:
    [kept] = [one.kept for one in outcomes if (one.scenario, getattr(one, side)) == (scenario, name)]
    return {True: "kept", False: "**broken**", None: "-"}[kept]


def written(page: str) -> str:
    """Return what a page has between its markers."""
    return page.split(_BEGIN)[1].split(_END, maxsplit=1)[0]


def with_tables(page: str, outcomes: Sequence[Outcome]) -> str:
    """Return the page with these outcomes in place of those that it has."""
    before, rest = page.split(_BEGIN)
    return f"{before}{_BEGIN}{tables(outcomes)}{_END}{rest.split(_END)[1]}"


def expected() -> list[Outcome]:
    """What a run gives in which every peer takes part and keeps everything."""
    peers = PEERS.values()
    return [
        *(
            Outcome(one.name, server.name, client.name, True if one.applies(server, client) else None)
            for server in peers
            for client in peers
            for one in SCENARIOS
        ),
        *(
            Outcome(one.name, peer.name, "", True if one.applies(peer) else None)
            for peer in peers
            for one in alone.OF_SERVERS
        ),
        *(
            Outcome(one.name, "", peer.name, True if one.applies(peer) else None)
            for peer in peers
            for one in alone.OF_CLIENTS
        ),
        *(Outcome(number, peer.name, "", True) for peer in peers for number in SERVER_RULES),
        *(Outcome(number, "", peer.name, True) for peer in peers for number in CLIENT_RULES),
    ]


def publish(outcomes: Sequence[Outcome], page: Path = PAGE) -> None:
    """Write the outcomes of a whole run into the page."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), outcomes), encoding="utf-8")
