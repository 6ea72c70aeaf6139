"""The rules by their numbers, and what a check found of each. docs/wire-protocol.md has them in words.

This module must never look at a peer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from trio_ipc.testing.checking import check_bool


class Verdict(enum.StrEnum):
    """What is to be said of a rule."""

    KEPT = "kept"
    """The peer was seen to keep it."""
    BROKEN = "broken"
    """The peer was seen to break it."""
    NOT_SHOWN = "not shown"
    """Nothing was seen of it: it was not tried, or the peer gave no chance."""


@attrs.frozen
class WireRule:
    """One rule of the wire protocol.

    Attributes:
        number: such as ``S7``; S of servers, C of clients. Numbers are never given twice.
        says: what the peer has to do, in one sentence.
        hostile: whether it is tried by bytes that the protocol forbids, or by taking every place.
        slow: whether it is tried by waiting for the peer's read deadline.
    """

    number: str
    says: str
    hostile: bool = attrs.field(default=False, kw_only=True)
    slow: bool = attrs.field(default=False, kw_only=True)


def _table(*rules: WireRule) -> Mapping[str, WireRule]:
    return {rule.number: rule for rule in rules}


#: What is asked of a server.
SERVER_RULES: Final = _table(
    WireRule("S1", "A request is answered by a frame: its length, 1 to the limit, and so many bytes."),
    WireRule("S2", "The header's second number is the CRC-32 of the payload, little-endian."),
    WireRule("S3", "A response has the checksum variant of its request; one that is not spoken is refused."),
    WireRule("S4", "The payload of a response is a message of the response type."),
    WireRule("S5", "A response answers the request that was made."),
    WireRule("S6", "A request has one response."),
    WireRule("S7", "Requests that were sent ahead are answered in their order."),
    WireRule("S8", "A connection carries any number of requests, one after another."),
    WireRule("S9", "A frame may come in pieces, however small."),
    WireRule("S10", "A request of exactly max_frame_bytes is answered."),
    WireRule("S11", "After the end of the client's sending its requests are still answered."),
    WireRule("S12", "After the last of these responses the server closes, and says nothing more."),
    WireRule("S13", "Other users cannot reach the endpoint."),
    WireRule("S14", "A connection on which nothing is asked ends after read_timeout_ms.", slow=True),
    WireRule("S15", "A frame that does not come to its end ends the connection.", slow=True),
    WireRule("S16", "A length over the limit ends the connection, before any payload came.", hostile=True),
    WireRule("S17", "A length of 0 ends the connection.", hostile=True),
    WireRule("S18", "A wrong checksum ends the connection; the request is not answered.", hostile=True),
    WireRule("S19", "A payload that is no message ends the connection.", hostile=True),
    WireRule("S20", "An end inside a frame ends the connection; the part is not answered.", hostile=True),
    WireRule("S21", "Requests before a broken frame are answered.", hostile=True),
    WireRule("S22", "Of a broken frame at most one failed response is said, in a good frame.", hostile=True),
    WireRule("S23", "What is broken on one connection is not felt on others, or later.", hostile=True),
    WireRule("S24", "Connections over the limits are closed without a byte; others go on.", hostile=True),
)

#: What is asked of a client.
CLIENT_RULES: Final = _table(
    WireRule("C1", "A request is a frame: its length, 1 to the limit, and so many bytes."),
    WireRule("C2", "The header's second number is the CRC-32 of the payload, little-endian."),
    WireRule("C3", "All requests of a connection have one checksum variant, the one that is set."),
    WireRule("C4", "The payload of a request is a message of the request type."),
    WireRule("C5", "A response may come in pieces, however small."),
    WireRule("C6", "A response of exactly max_frame_bytes is taken."),
    WireRule("C7", "A response that does not come is waited for no longer than read_timeout_ms.", slow=True),
    WireRule("C8", "A length over the limit ends the connection, before any payload came.", hostile=True),
    WireRule("C9", "A length of 0 ends the connection.", hostile=True),
    WireRule("C10", "A wrong checksum ends the connection.", hostile=True),
    WireRule("C11", "A payload that is no message ends the connection.", hostile=True),
    WireRule("C12", "An end inside a frame ends the connection.", hostile=True),
    WireRule("C13", "A response to another request ends the connection.", hostile=True),
    WireRule("C14", "An unsolicited response ends the connection.", hostile=True),
)


@attrs.frozen
class Finding:
    """What was found of one rule.

    Attributes:
        rule: the rule.
        verdict: kept, broken, or not shown.
        seen: what was seen, or why nothing was; for people.
    """

    rule: WireRule
    verdict: Verdict
    seen: str


@attrs.frozen
class Conformance:
    """The result of a check.

    Attributes:
        endpoint: where it was made.
        side: what was checked, ``"server"`` or ``"client"``.
        findings: one for each rule of that side, in their order.
    """

    endpoint: str
    side: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether something was seen, and nothing of it was broken."""
        return not self.broken and any(finding.verdict is Verdict.KEPT for finding in self.findings)

    @property
    def broken(self) -> tuple[str, ...]:
        """The numbers of the rules that were broken."""
        return self._numbers(Verdict.BROKEN)

    @property
    def kept(self) -> tuple[str, ...]:
        """The numbers of the rules that were kept."""
        return self._numbers(Verdict.KEPT)

    @property
    def not_shown(self) -> tuple[str, ...]:
        """The numbers of the rules of which nothing was seen."""
        return self._numbers(Verdict.NOT_SHOWN)

    def __getitem__(self, number: str) -> Finding:
        """Return what was found of a rule.

        Raises:
            KeyError: this side has no such rule.
        """
        for finding in self.findings:
            if finding.rule.number == number:
                return finding
        raise KeyError(number)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        return {
            "endpoint": self.endpoint,
            "side": self.side,
            "ok": self.ok,
            "rules": [
                {
                    "rule": finding.rule.number,
                    "says": finding.rule.says,
                    "verdict": finding.verdict.value,
                    "seen": finding.seen,
                }
                for finding in self.findings
            ],
        }

    def _numbers(self, verdict: Verdict) -> tuple[str, ...]:
        return tuple(finding.rule.number for finding in self.findings if finding.verdict is verdict)


class Notes:
    """What a check has seen so far. What was seen broken once stays so, with what was seen first.

    Args:
        rules: those of one side.
        hostile, deadlines: what was asked for.
        on_finding: called with each finding when it is final, or None.
    """

    def __init__(
        self,
        rules: Mapping[str, WireRule],
        *,
        hostile: bool,
        deadlines: bool,
        on_finding: Callable[[Finding], object] | None = None,
    ) -> None:
        check_bool("hostile", hostile)
        check_bool("deadlines", deadlines)
        self._rules = rules
        self._on_finding = on_finding
        self._findings: dict[str, Finding] = {}
        self._told: set[str] = set()
        self._hostile = hostile
        self._deadlines = deadlines

    def wanted(self, number: str) -> bool:
        """Whether a rule is to be tried; one that is not is noted as not shown."""
        rule = self._rules[number]
        if rule.hostile and not self._hostile:
            self.not_shown(number, "it takes hostile bytes, which were not asked for")
            return False
        if rule.slow and not self._deadlines:
            self.not_shown(number, "it takes as long as the read deadline, which was not asked for")
            return False
        return True

    def kept(self, number: str, seen: str) -> None:
        """Note that a rule was kept."""
        self._note(number, Verdict.KEPT, seen)

    def broken(self, number: str, seen: str) -> None:
        """Note that a rule was broken."""
        self._note(number, Verdict.BROKEN, seen)

    def not_shown(self, number: str, why: str) -> None:
        """Note why nothing was seen of a rule."""
        self._note(number, Verdict.NOT_SHOWN, why)

    def is_broken(self, number: str) -> bool:
        """Whether a rule was seen broken."""
        return number in self._findings and self._findings[number].verdict is Verdict.BROKEN

    def is_kept(self, number: str) -> bool:
        """Whether a rule was seen kept, and not broken."""
        return number in self._findings and self._findings[number].verdict is Verdict.KEPT

    def blame(self, number: str, why: str) -> None:
        """Note that a rule was broken after all: what was seen before was the beginning of it."""
        self._findings.pop(number, None)
        self.broken(number, why)

    def tell(self, numbers: Iterable[str]) -> None:
        """Say that these are final."""
        for number in numbers:
            if number not in self._told and number in self._findings:
                self._told.add(number)
                if self._on_finding is not None:
                    self._on_finding(self._findings[number])

    def result(self, endpoint: str, side: str, otherwise: str) -> Conformance:
        """Return all findings; ``otherwise`` is why nothing was seen where nothing was noted."""
        for number in self._rules:
            if self.wanted(number):
                self.not_shown(number, otherwise)
        self.tell(self._rules)
        return Conformance(endpoint, side, tuple(self._findings[number] for number in self._rules))

    def _note(self, number: str, verdict: Verdict, seen: str) -> None:
        before = self._findings.get(number)
        worth = (Verdict.NOT_SHOWN, Verdict.KEPT, Verdict.BROKEN)
        if before is None or worth.index(verdict) > worth.index(before.verdict):
            self._findings[number] = Finding(self._rules[number], verdict, seen)
