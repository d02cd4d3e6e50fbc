"""Shards over processes: the same function and tasks, on this process or on several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from cmelt.errors import CmeltError

Task = TypeVar("Task")
Result = TypeVar("Result")

ATTEMPTS = 3
"""How often a shard is begun when its worker dies."""


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(workers: int) -> Executor:
    """Return an executor of fresh processes, which inherit no threads, locks or file handles."""
    return ProcessPoolExecutor(workers, get_context("spawn"))


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, executor: Callable[[int], Executor] = processes
) -> Iterator[Result]:
    """Yield ``function(task)`` for every task, as each is done; where a worker dies its task is begun anew."""
    left = list(tasks)
    for attempt in range(1, ATTEMPTS + 1):
        with executor(min(workers, len(left))) as pool:
            futures = {pool.submit(function, task): task for task in left}
            try:
                for future in as_completed(futures):
                    task = futures[future]
                    result = future.result()
                    left.remove(task)
                    yield result
                return
            except BrokenProcessPool:
                if attempt == ATTEMPTS:
                    raise CmeltError(f"worker processes died {ATTEMPTS} times (out of memory?); run again with fewer --workers") from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
