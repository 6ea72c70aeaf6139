from __future__ import annotations

from trio_ipc.speculation import Speculation


def occasions_until_tried(subject: Speculation) -> int:
    """How many occasions go by, the one that is tried included."""
    count = 1
    while not subject.is_worth_it():
        count += 1
    return count


def test_what_is_in_vain_is_tried_half_as_often_each_time_and_no_less_than_once_in_64() -> None:
    subject = Speculation()
    assert [occasions_until_tried(subject) for _ in range(10)] == [1, 2, 4, 8, 16, 32, 64, 64, 64, 64]


def test_what_helped_is_tried_again_at_once() -> None:
    subject = Speculation()
    for _ in range(10):
        assert subject.is_worth_it()
        subject.succeeded()
    for _ in range(5):
        occasions_until_tried(subject)
    subject.succeeded()
    assert subject.is_worth_it()
