from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from trio_ipc import ConfigError
from trio_ipc.resilient import ResilientConfig, Strategy
from trio_ipc.resilient.balancing import Candidate, Rotation, Standing, score

NOW = 1000.0
STRATEGIES = pytest.mark.parametrize("strategy", list(Strategy))


class One(Candidate):
    """A candidate of a name and a standing."""

    def __init__(
        self,
        name: str,
        standing: Standing | None = Standing.ABLE,
        *,
        priority: int = 1,
        connected: bool = False,
    ) -> None:
        super().__init__(priority)
        self.name = name
        self.standing = standing
        self.connected = connected
        self.judged = 0

    def judge(self) -> Standing | None:
        self.judged += 1
        return self.standing


class Turns:
    """Candidates, and whose turn it is."""

    def __init__(
        self,
        *candidates: One,
        strategy: Strategy = Strategy.ROUND_ROBIN,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self.candidates = [*candidates]
        self.rotation: Rotation[One] = Rotation(strategy, draw or random.Random(1).random)
        self.rotation.replace(self.candidates)

    def next(self, *, full: bool = False) -> str | None:
        chosen = self.rotation.choose(
            One.judge, now=NOW, is_connected=(lambda one: one.connected) if full else None
        )
        return None if chosen is None else chosen.name

    def take(self, count: int) -> str:
        """The servers that have so many turns, one after the other."""
        return "".join(str(self.next()) for _ in range(count))


@STRATEGIES
def test_of_nobody_nobody_is_chosen(strategy: Strategy) -> None:
    assert Turns(strategy=strategy).next() is None
    assert Turns(One("a", None), strategy=strategy).next() is None


def test_round_robin_gives_everyone_a_turn() -> None:
    assert Turns(One("a"), One("b"), One("c")).take(7) == "abcabca"


def test_round_robin_goes_to_who_waited_longest_however_the_group_changes() -> None:
    """A counter modulo the number of candidates would starve one here, or ask one twice in a row."""
    a, b, c = One("a"), One("b"), One("c")
    turns = Turns(a, b, c)
    assert turns.take(2) == "ab"
    a.standing = Standing.UNABLE
    assert turns.take(3) == "cbc"
    a.standing = Standing.ABLE
    turns.rotation.replace([a, b, c, One("new")])
    assert turns.take(5).startswith("newabc")


def test_one_that_comes_has_its_turn_before_those_that_had_one() -> None:
    a, b = One("a"), One("b")
    turns = Turns(a, b)
    turns.take(4)
    turns.rotation.replace([a, b, One("x"), One("y")])
    assert turns.take(5) == "xyabx"
    turns.rotation.replace([b])
    assert turns.take(2) == "bb"


def test_priority_asks_the_smallest_number_and_takes_turns_among_equals() -> None:
    a, b, low = One("a"), One("b"), One("c", priority=2)
    turns = Turns(low, a, b, strategy=Strategy.PRIORITY)
    assert turns.take(4) == "abab"
    a.standing = b.standing = Standing.FAILING
    assert turns.take(2) == "cc"


def test_the_score_is_the_priority_and_how_recent_the_last_success_is() -> None:
    def scored(priority: int = 1, last_success: float | None = None) -> float:
        candidate = Candidate(priority)
        candidate.last_success = last_success
        return score(candidate, NOW)

    assert scored() == 1
    assert scored(4) == 0.25
    assert scored(last_success=1000) == 2
    assert scored(last_success=700) == pytest.approx(1 + math.exp(-1))
    assert scored(last_success=2000) == 2, "a clock that is behind gives no more"


def test_weighted_gives_each_a_share_in_proportion_to_its_score() -> None:
    often, seldom = One("a"), One("b", priority=2)
    often.last_success = NOW  # 2 against 0.5
    turns = Turns(often, seldom, strategy=Strategy.WEIGHTED)
    shares = Counter(turns.next() for _ in range(10_000))
    assert shares["a"] == pytest.approx(8_000, abs=150)
    last = math.nextafter(1, 0)
    assert Turns(One("a"), One("b"), strategy=Strategy.WEIGHTED, draw=lambda: last).next() == "b"


def test_weighted_keeps_its_shares_among_the_second_best_and_where_the_lot_always_falls_on_another() -> None:
    often, seldom = One("a", Standing.UNABLE), One("b", Standing.UNABLE, priority=2)
    often.last_success = NOW
    others = [One(str(number), Standing.FAILING) for number in range(50)]
    turns = Turns(often, seldom, *others, strategy=Strategy.WEIGHTED)
    shares = Counter(turns.next() for _ in range(2_000))
    assert shares["a"] == pytest.approx(1_600, abs=80)
    assert shares.keys() == {"a", "b"}


@STRATEGIES
def test_who_can_do_the_task_comes_first_then_any_healthy_one(strategy: Strategy) -> None:
    unable, able, sick = One("a", Standing.UNABLE), One("b"), One("c", Standing.FAILING)
    turns = Turns(unable, able, sick, strategy=strategy)
    assert turns.take(5) == "bbbbb"
    able.standing = None
    assert turns.take(5) == "aaaaa"


@STRATEGIES
def test_who_could_not_do_it_but_may_by_now_comes_before_who_cannot(strategy: Strategy) -> None:
    unable, able, perhaps = One("a", Standing.UNABLE), One("b", None), One("c", Standing.PERHAPS)
    turns = Turns(unable, able, perhaps, strategy=strategy)
    assert turns.take(5) == "ccccc"
    able.standing = Standing.ABLE
    assert turns.take(5) == "bbbbb"


@STRATEGIES
def test_where_none_is_healthy_the_oldest_failure_is_chosen(strategy: Strategy) -> None:
    sick = [One("a", Standing.FAILING), One("b", Standing.FAILING, priority=9), One("c", Standing.FAILING)]
    for candidate, at in zip(sick, [900, 700, 800], strict=True):
        candidate.last_failure = at
    assert Turns(*sick, strategy=strategy).take(3) == "bbb"


def test_a_strategy_may_be_named_and_a_wrong_name_is_refused() -> None:
    assert ResilientConfig(strategy="weighted").strategy is Strategy.WEIGHTED
    with pytest.raises(ConfigError, match="strategy is 'best', must be \"round-robin\" or"):
        ResilientConfig(strategy="best")


@STRATEGIES
def test_a_choice_looks_at_as_many_of_two_hundred_as_of_two(strategy: Strategy) -> None:
    many = [One(str(number)) for number in range(200)]
    turns = Turns(*many, strategy=strategy)
    for _ in range(600):
        turns.next()
    assert 600 <= sum(one.judged for one in many) <= 600 + 200


# --- Where there is no room for another connection ----------------------------------------------------------


@pytest.mark.parametrize("strategy", [Strategy.ROUND_ROBIN, Strategy.PRIORITY])
def test_who_has_a_connection_goes_first_for_sixteen_rounds_where_another_would_be_closed(
    strategy: Strategy,
) -> None:
    a, b, c = One("a", connected=True), One("b", connected=True), One("c")
    turns = Turns(a, b, c, strategy=strategy)
    order = [turns.next(full=True) for _ in range(16 * 3 + 1)]
    assert order == [*"ab" * 24, "c"]
    a.standing = b.standing = Standing.UNABLE
    assert turns.next(full=True) == "c", "it is only for those that are as good"


def test_a_connection_is_worth_nothing_against_a_better_priority() -> None:
    first, second = One("a"), One("b", priority=2, connected=True)
    assert Turns(first, second, strategy=Strategy.PRIORITY).next(full=True) == "a"


def test_who_has_one_is_not_skipped_for_having_waited_longest() -> None:
    a, b, c = One("a"), One("b", connected=True), One("c")
    turns = Turns(a, b, c)
    assert [turns.next(full=True) for _ in range(3)] == ["b"] * 3


# --- By the highest score -----------------------------------------------------------------------------------


def scored(name: str, priority: int = 1, last_success: float | None = None) -> One:
    one = One(name, priority=priority)
    one.last_success = last_success
    return one


def test_the_highest_score_has_all_turns_and_equals_take_theirs() -> None:
    a, b, c = scored("a"), scored("b"), scored("c", 2)
    turns = Turns(a, b, c, strategy=Strategy.HIGHEST_SCORE)
    assert turns.take(4) == "abab"
    b.last_success = NOW - 100
    assert turns.take(3) == "bbb"
    c.last_success = NOW
    assert turns.take(3) == "bbb", "its score is 1, and 1.7 the other one's"
    b.standing = Standing.UNABLE
    assert turns.take(3) == "aaa", "equals of another priority do not take turns"


def test_the_highest_score_is_that_of_the_formula_whatever_there_is() -> None:
    chance = random.Random(3)
    for _ in range(200):
        some = [
            scored(str(number), chance.randrange(1, 4), chance.choice([None, chance.uniform(0, NOW)]))
            for number in range(chance.randrange(1, 9))
        ]
        for one in some:
            one.standing = chance.choice([Standing.ABLE, Standing.ABLE, Standing.UNABLE, None])
        best = min((one.standing for one in some if one.standing is not None), default=None)
        chosen = Turns(*some, strategy=Strategy.HIGHEST_SCORE).next()
        if best is None:
            assert chosen is None
        else:
            [found] = [one for one in some if one.name == chosen]
            assert found.standing is best
            assert score(found, NOW) == max(score(one, NOW) for one in some if one.standing is best)


def test_candidates_that_are_replaced_a_hundred_times_are_put_in_order_once() -> None:
    """As where a client of a hundred endpoints is opened, which adds them one by one."""
    looks = 0

    class Looked(list[Candidate]):
        def __iter__(self) -> Iterator[Candidate]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    rotation: Rotation[Candidate] = Rotation(Strategy.ROUND_ROBIN, lambda: 0.0)
    everyone = Looked()
    for _ in range(100):
        everyone.append(Candidate())
        rotation.replace(everyone)
    chosen = {rotation.choose(lambda _: Standing.ABLE, now=0.0) for _ in range(100)}
    assert (len(chosen), looks) == (100, 1)
