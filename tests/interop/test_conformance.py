"""The peers in other languages keep the rules that have numbers, each in every variant that it speaks.

Our own sides are in tests/testing/test_conformance_servers.py and test_conformance_clients.py, and ``make
interop`` checks them as programs, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from tests.interop import rules
from tests.interop.peers import PEERS, Peer
from tests.interop.rules import MODES, Mode
from tests.platforms import unix_only
from trio_ipc.testing import CLIENT_RULES, SERVER_RULES, Conformance, WireRule

pytestmark = unix_only

OTHERS: Final = [
    pytest.param(peer, variant, marks=pytest.mark.skipif(bool(why := peer.left_out()), reason=why or ""))
    for peer in PEERS.values()
    if peer.name not in {"ours", "legacy"}
    for variant in rules.variants(peer)
]

each_peer = pytest.mark.parametrize(("peer", "variant"), OTHERS, ids=lambda one: getattr(one, "name", one))
each_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)

_HOSTILE: Final = "it takes hostile bytes, which were not asked for"
_SLOW: Final = "it takes as long as the read deadline, which was not asked for"

#: What is not seen in each mode, with its reason. It is the same of every peer: none has a rule of which
#: nothing is seen although it was asked for. One that has gets it here, by its name.
NOT_SHOWN: Final[dict[str, dict[str, str]]] = {
    "default": {
        **dict.fromkeys(("S14", "S15"), _SLOW),
        **dict.fromkeys(("S16", "S17", "S18", "S19", "S20", "S21", "S22", "S23", "S24"), _HOSTILE),
        "C7": _SLOW,
        **dict.fromkeys(("C8", "C9", "C10", "C11", "C12", "C13", "C14"), _HOSTILE),
    },
    "deadlines": {
        **dict.fromkeys(("S16", "S17", "S18", "S19", "S20", "S21", "S22", "S23", "S24"), _HOSTILE),
        **dict.fromkeys(("C8", "C9", "C10", "C11", "C12", "C13", "C14"), _HOSTILE),
    },
    "hostile": dict.fromkeys(("S14", "S15", "C7"), _SLOW),
}


def keeps_all(found: Conformance, mode: Mode, known: Mapping[str, WireRule]) -> None:
    """Every rule is kept but those that are known not to be seen, for the reason that is known."""
    assert {number: found[number].seen for number in found.broken} == {}
    expected = {number: why for number, why in NOT_SHOWN[mode.name].items() if number in known}
    assert {number: found[number].seen for number in found.not_shown} == expected
    assert len(found.kept) == len(known) - len(expected)


@each_mode
@each_peer
async def test_a_server_in_another_language_keeps_every_rule(peer: Peer, variant: str, mode: Mode) -> None:
    keeps_all(await rules.judge_server(peer, variant, mode), mode, SERVER_RULES)


@each_mode
@each_peer
async def test_a_client_in_another_language_keeps_every_rule(peer: Peer, variant: str, mode: Mode) -> None:
    keeps_all(await rules.judge_client(peer, variant, mode), mode, CLIENT_RULES)


def test_each_rule_is_shown_in_some_mode() -> None:
    everywhere = set.intersection(*(set(NOT_SHOWN[mode.name]) for mode in MODES))
    assert everywhere == set()
    assert NOT_SHOWN.keys() == {mode.name for mode in MODES}


# --- Peers that break a rule --------------------------------------------------------------------------------


def broken(change: str) -> Peer:
    """The peer in Python with something changed in it, by lines of a program."""
    program = (
        f"import os, sys\nfrom tests.interop.stdlib import peer, __main__ as program\n{change}\n"
        "program.main(*sys.argv[1:])\n"
    )
    return Peer("broken", "", (*PEERS["python"].command[:2], "-c", program))


#: It writes right checksums, and takes any.
CARELESS: Final = """
class Any:
    def __ne__(self, other):
        return False

def receive(self, kind, *, carefully=peer.Connection.receive):
    right, self._checksum = self._checksum, lambda payload: Any()
    try:
        return carefully(self, kind)
    finally:
        self._checksum = right

peer.Connection.receive = receive
"""

OPEN_TO_ALL: Final = """
umask = os.umask
os.umask = lambda mask: umask(0)
"""

OTHER_VARIANT: Final = "peer.CHECKSUMS['ieee'] = peer.crc32c"


async def test_a_broken_peer_breaks_its_rule() -> None:
    default, _, hostile = MODES
    # It takes a request in the other variant, too, and answers in its own.
    assert (await rules.judge_server(broken(CARELESS), "ieee", hostile)).broken == ("S3", "S18")
    assert (await rules.judge_client(broken(CARELESS), "ieee", hostile)).broken == ("C10",)
    assert (await rules.judge_server(broken(OPEN_TO_ALL), "ieee", default)).broken == ("S13",)


async def test_the_sum_of_a_peer_says_what_it_breaks() -> None:
    came = {one.scenario: one for one in await rules.run_client(broken(OTHER_VARIANT))}
    assert [*came] == [*CLIENT_RULES]
    assert [number for number, one in came.items() if one.kept is not True] == ["C3"]
    assert came["C3"].kept is False
    assert "it speaks castagnoli, the setting crc32_variant is ieee" in came["C3"].why


async def test_a_peer_that_does_not_even_begin_breaks_everything() -> None:
    for run in (rules.run_server, rules.run_client):
        came = await run(broken("sys.exit(3)"))
        assert {one.kept for one in came} == {False}
        assert "ended with status 3" in came[0].why
