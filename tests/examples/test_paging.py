from __future__ import annotations

import pytest

from examples.agent.paging import PAGE, CollectorError, Question, enumerate_processes
from trio_ipc import RESPONSE_TOO_LARGE, MessageTooLargeError, PeerClosedError
from trio_ipc.daemoneye import DetectionResult, DetectionTask, ProcessRecord


class FakeCollector:
    """Answers as a collector whose frames hold `limit` bytes.

    Args:
        sizes: the processes that exist, and how large their whole records are.
        limit: bytes that fit into a response.
        outlines: whether it knows pids_only; existing collectors do not.
    """

    def __init__(self, sizes: dict[int, int], limit: int, *, outlines: bool = True) -> None:
        self._sizes = sizes
        self._limit = limit
        self._outlines = outlines
        self.asked: list[DetectionTask] = []

    async def ask(self, task: DetectionTask) -> DetectionResult:
        self.asked.append(task)
        outline = self._outlines and task.metadata == "pids_only"
        wanted = [
            pid for pid in self._sizes if not task.process_filter.pids or pid in task.process_filter.pids
        ]
        size = sum(2 if outline else self._sizes[pid] for pid in wanted)
        if size > self._limit:
            message = f"{RESPONSE_TOO_LARGE}: {size} bytes, the limit max_frame_bytes is {self._limit}"
            return DetectionResult(task_id=task.task_id, error_message=message)
        records = [ProcessRecord(pid=pid, name=str(pid)) for pid in wanted]
        return DetectionResult(task_id=task.task_id, success=True, processes=records)


async def test_a_response_that_fits_is_asked_for_once() -> None:
    collector = FakeCollector({1: 10, 2: 10}, limit=20)
    seen = await enumerate_processes(collector.ask, Question(names=["1", "2"], algorithm="sha256"))
    assert [record.pid for record in seen.records] == [1, 2]
    assert (seen.pages, list(seen.skipped)) == (1, [])
    (task,) = collector.asked
    assert list(task.process_filter.process_names) == ["1", "2"]
    assert task.hash_check.hash_algorithm == "sha256"


async def test_every_task_has_an_id_of_its_own() -> None:
    collector = FakeCollector(dict.fromkeys(range(1, 9), 10), limit=20)
    await enumerate_processes(collector.ask, Question())
    ids = [task.task_id for task in collector.asked]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("limit", [2000, 3500, 9999])
async def test_pages_bring_every_record_once_and_in_order(limit: int) -> None:
    sizes = {pid: 10 + pid % 90 for pid in range(1, 1001)}
    seen = await enumerate_processes(FakeCollector(sizes, limit).ask, Question())
    assert [record.pid for record in seen.records] == list(sizes)
    assert not seen.skipped


async def test_pages_start_at_their_usual_size_and_keep_the_filter() -> None:
    collector = FakeCollector(dict.fromkeys(range(1, PAGE * 2 + 2), 10), limit=PAGE * 10)
    seen = await enumerate_processes(collector.ask, Question(names=["a"], algorithm="md5"))
    assert seen.pages == 3
    whole, outline, *pages = collector.asked
    assert not whole.process_filter.pids
    assert (outline.metadata, outline.hash_check.hash_algorithm) == ("pids_only", "")
    assert [len(page.process_filter.pids) for page in pages] == [PAGE, PAGE, 1]
    for page in pages:
        assert list(page.process_filter.process_names) == ["a"]
        assert page.hash_check.hash_algorithm == "md5"
        assert not page.HasField("metadata")


async def test_a_single_record_that_fits_no_frame_is_named_and_skipped() -> None:
    collector = FakeCollector({1: 10, 2: 1000, 3: 10, 4: 10}, limit=30)
    seen = await enumerate_processes(collector.ask, Question())
    assert [record.pid for record in seen.records] == [1, 3, 4]
    assert list(seen.skipped) == [2]


async def test_given_pids_are_paged_without_asking_for_them() -> None:
    collector = FakeCollector({1: 10, 2: 10, 3: 10}, limit=20)
    seen = await enumerate_processes(collector.ask, Question(pids=[3, 1, 3, 2]))
    assert [record.pid for record in seen.records] == [3, 1, 2]
    assert not any(task.HasField("metadata") for task in collector.asked)


async def test_a_list_of_pids_that_is_too_large_is_one_clear_error() -> None:
    collector = FakeCollector(dict.fromkeys(range(1, 99), 10), limit=50)
    with pytest.raises(CollectorError, match=r"even the list of pids .* raise max_frame_bytes on both sides"):
        await enumerate_processes(collector.ask, Question())


async def test_a_collector_that_does_not_know_pids_only_is_one_clear_error() -> None:
    collector = FakeCollector({1: 30, 2: 30}, limit=50, outlines=False)
    with pytest.raises(CollectorError, match="even the list of pids is too large"):
        await enumerate_processes(collector.ask, Question())
    assert len(collector.asked) == 2


async def test_a_question_that_is_too_large_is_halved_like_a_response() -> None:
    collector = FakeCollector(dict.fromkeys(range(1, 65), 1), limit=1000)

    async def ask(task: DetectionTask) -> DetectionResult:
        if len(task.process_filter.pids) > 10:
            raise MessageTooLargeError("the message is too large")
        return await collector.ask(task)

    seen = await enumerate_processes(ask, Question(pids=range(1, 65)))
    assert [record.pid for record in seen.records] == list(range(1, 65))
    assert seen.pages == 8


async def test_another_failure_is_told_with_the_collectors_reason() -> None:
    async def ask(task: DetectionTask) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, error_message="no time")

    with pytest.raises(CollectorError, match="the collector failed: no time"):
        await enumerate_processes(ask, Question())


async def test_a_failure_without_a_reason_says_that_too() -> None:
    async def ask(task: DetectionTask) -> DetectionResult:
        return DetectionResult(task_id=task.task_id)

    with pytest.raises(CollectorError, match="does not say why"):
        await enumerate_processes(ask, Question())


async def test_a_broken_connection_is_not_taken_for_a_large_answer() -> None:
    async def ask(task: DetectionTask) -> DetectionResult:
        raise PeerClosedError("gone")

    with pytest.raises(PeerClosedError):
        await enumerate_processes(ask, Question())
