from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workbench.study import ATTEMPTS, Queue


def leased(queue: Queue) -> list[int]:
    cells = []
    while (lease := queue.lease()) is not None:
        cells.append(lease.cell)
        queue.finish(lease, 1.0)
    return cells


def test_cells_are_handed_out_in_order_and_once(tmp_path: Path) -> None:
    queue = Queue(tmp_path, "plan")
    queue.fill(range(5))
    queue.fill(range(5))
    assert leased(queue) == [0, 1, 2, 3, 4]
    assert queue.lease() is None


def test_two_workers_never_get_the_same_cell(tmp_path: Path) -> None:
    Queue(tmp_path, "plan").fill(range(12))
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda _: leased(Queue(tmp_path, "plan")), range(3)))
    assert sorted(cell for part in parts for cell in part) == list(range(12))


def test_a_cell_whose_worker_died_is_handed_out_again_and_not_forever(tmp_path: Path) -> None:
    queue = Queue(tmp_path, "plan")
    queue.fill([7])
    for attempt in range(ATTEMPTS):
        lease = queue.lease()
        assert lease is not None
        assert queue.recover(lambda cell: False) == []
        assert queue.recover(lambda cell: True) == ([7] if attempt == ATTEMPTS - 1 else [])
    assert queue.lease() is None


def test_a_cell_that_ended_without_a_value_may_be_filled_again(tmp_path: Path) -> None:
    queue = Queue(tmp_path, "plan")
    queue.fill([0])
    lease = queue.lease()
    assert lease is not None
    queue.finish(lease, None)
    queue.fill([0])
    assert leased(queue) == [0]


def test_what_an_earlier_start_left_behind_is_not_held_against_the_cell(tmp_path: Path) -> None:
    for _ in range(ATTEMPTS + 2):
        queue = Queue(tmp_path, "plan")
        assert queue.recover(lambda cell: True, blame=False) == []
        queue.fill([7])
        assert queue.lease() is not None
        assert queue.lease() is None
