from __future__ import annotations

import math
from collections import Counter

import attrs
import pytest

from trio_ipc import ConfigError
from trio_ipc.resilient import ResilientConfig, Strategy
from trio_ipc.resilient.balancing import Candidate, choose, score

A, B, C = (Candidate(id=name) for name in "abc")
STRATEGIES = pytest.mark.parametrize("strategy", list(Strategy))


def chosen(*candidates: Candidate, strategy: Strategy = Strategy.ROUND_ROBIN, chance: float = 0.0) -> str:
    found = choose(candidates, strategy, now=1000, chance=chance)
    assert found is not None
    return found.id


def turns(count: int, *candidates: Candidate, strategy: Strategy = Strategy.ROUND_ROBIN) -> str:
    """Who has so many turns, one after the other."""
    known = {candidate.id: candidate for candidate in candidates}
    order = ""
    for number in range(1, count + 1):
        name = chosen(*known.values(), strategy=strategy)
        known[name] = attrs.evolve(known[name], last_pick=number)
        order += name
    return order


@STRATEGIES
def test_of_nobody_nobody_is_chosen(strategy: Strategy) -> None:
    assert choose([], strategy, now=0, chance=0) is None


def test_round_robin_gives_everyone_a_turn() -> None:
    assert turns(7, A, B, C) == "abcabca"


def test_round_robin_goes_to_who_waited_longest_however_the_group_changes() -> None:
    """A counter modulo the number of candidates would starve one here, or ask one twice in a row."""
    networked = attrs.evolve(B, last_pick=3), attrs.evolve(C, last_pick=2)
    assert chosen(attrs.evolve(A, last_pick=1, capable=False), *networked) == "c"
    assert chosen(attrs.evolve(A, last_pick=5), attrs.evolve(B, last_pick=4), Candidate(id="new")) == "new"


def test_priority_asks_the_smallest_number_and_takes_turns_among_equals() -> None:
    low = attrs.evolve(C, priority=2)
    assert turns(4, A, B, low, strategy=Strategy.PRIORITY) == "abab"
    assert chosen(attrs.evolve(A, healthy=False), low, strategy=Strategy.PRIORITY) == "c"


def test_the_score_is_the_priority_and_how_recent_the_last_success_is() -> None:
    assert score(A, 1000) == 1
    assert score(attrs.evolve(A, priority=4), 1000) == 0.25
    assert score(attrs.evolve(A, last_success=1000), 1000) == 2
    assert score(attrs.evolve(A, last_success=700), 1000) == pytest.approx(1 + math.exp(-1))
    assert score(attrs.evolve(A, last_success=2000), 1000) == 2, "a clock that is behind gives no more"


def test_weighted_gives_each_a_share_in_proportion_to_its_score() -> None:
    often = attrs.evolve(A, last_success=1000)  # 2
    seldom = attrs.evolve(B, priority=2)  # 0.5
    shares = Counter(
        chosen(often, seldom, strategy=Strategy.WEIGHTED, chance=step / 1000) for step in range(1000)
    )
    assert shares == {"a": 800, "b": 200}
    assert chosen(often, seldom, strategy=Strategy.WEIGHTED, chance=math.nextafter(1, 0)) == "b"


@STRATEGIES
def test_who_can_do_the_task_comes_first_then_any_healthy_one(strategy: Strategy) -> None:
    unable = attrs.evolve(A, capable=False)
    sick = attrs.evolve(C, healthy=False, last_failure=1)
    assert {chosen(unable, B, sick, strategy=strategy, chance=x / 10) for x in range(10)} == {"b"}
    assert {chosen(unable, sick, strategy=strategy, chance=x / 10) for x in range(10)} == {"a"}


@STRATEGIES
def test_who_could_not_do_it_but_may_by_now_comes_before_who_cannot(strategy: Strategy) -> None:
    unable = attrs.evolve(A, capable=False)
    perhaps = attrs.evolve(C, capable=False, doubtful=True)
    assert {chosen(unable, perhaps, strategy=strategy, chance=x / 10) for x in range(10)} == {"c"}
    assert {chosen(unable, perhaps, B, strategy=strategy, chance=x / 10) for x in range(10)} == {"b"}


@STRATEGIES
def test_where_none_is_healthy_the_oldest_failure_is_chosen(strategy: Strategy) -> None:
    sick = [
        Candidate(id=name, healthy=False, last_failure=at, priority=rank)
        for name, at, rank in [("a", 900, 1), ("b", 700, 9), ("c", 800, 1)]
    ]
    assert {chosen(*sick, strategy=strategy, chance=x / 10) for x in range(10)} == {"b"}


def test_a_strategy_may_be_named_and_a_wrong_name_is_refused() -> None:
    assert ResilientConfig(strategy="weighted").strategy is Strategy.WEIGHTED
    with pytest.raises(ConfigError, match="strategy is 'best', must be \"round-robin\" or"):
        ResilientConfig(strategy="best")
