"""Queues that bound bytes."""

import threading
import time

import pytest

from segtool.overlap import ByteBudget, ByteQueue, Stopped


def in_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_items_come_out_in_order_and_none_after_the_close() -> None:
    queue: ByteQueue[int] = ByteQueue(100)
    for item in (1, 2, 3):
        queue.put(item, 10)
    queue.close()
    assert [queue.get() for _ in range(4)] == [1, 2, 3, None]


def test_a_full_queue_waits_until_there_is_room() -> None:
    queue: ByteQueue[int] = ByteQueue(10)
    queue.put(1, 8)
    thread = in_thread(lambda: queue.put(2, 8))
    thread.join(0.05)
    assert thread.is_alive()
    assert queue.get() == 1
    thread.join(5)
    assert queue.get() == 2


def test_one_item_larger_than_the_queue_passes() -> None:
    queue: ByteQueue[int] = ByteQueue(10)
    queue.put(1, 1000)
    assert queue.get() == 1


def test_get_gives_up_after_its_timeout() -> None:
    with pytest.raises(TimeoutError):
        ByteQueue[int](10).get(timeout=0.01)


def test_stopping_wakes_getters_and_putters() -> None:
    queue: ByteQueue[int] = ByteQueue(10)
    outcomes: list[str] = []

    def wait(action: object) -> None:
        try:
            action()
        except Stopped:
            outcomes.append("stopped")

    empty: ByteQueue[int] = ByteQueue(10)
    queue.put(1, 10)
    budget = ByteBudget(10)
    budget.acquire(10)
    threads = [
        in_thread(lambda: wait(lambda: queue.put(2, 10))),
        in_thread(lambda: wait(empty.get)),
        in_thread(lambda: wait(lambda: budget.acquire(1))),
    ]
    time.sleep(0.05)
    for thing in (queue, empty, budget):
        thing.stop()
    for thread in threads:
        thread.join(5)
    assert outcomes == ["stopped"] * 3


def test_a_budget_lets_a_lone_holder_exceed_it_and_others_wait() -> None:
    budget = ByteBudget(10)
    budget.acquire(50)
    thread = in_thread(lambda: budget.acquire(5))
    thread.join(0.05)
    assert thread.is_alive()
    budget.release(50)
    thread.join(5)
    assert not thread.is_alive()
