"""Shards over workers: the same function and tasks on this process, on several, or on a Dask cluster; a lost worker's is done again."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from cmelt.errors import CmeltError, InputError, MissingExtra

Task = TypeVar("Task")
Result = TypeVar("Result")
MakeExecutor = Callable[[int], Executor]
"""Makes an executor of that many workers; a fresh one is made after a worker was lost."""

ATTEMPTS = 3
"""Workers lost in a row, without one task done, after which the work is given up."""

ADDRESS = re.compile(r"[a-z]+://[^/\s]+:\d+/?")
"""How a Dask scheduler's address looks."""

TICK_S = 0.5
"""Between two looks at how far the workers are."""


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(workers: int) -> Executor:
    """Return an executor of fresh processes, which inherit no threads, locks or file handles, and end with this one."""
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=follow_parent)


def follow_parent() -> None:
    """End this process when its parent does, killed or not, and not before: Ctrl-C, which a terminal sends to all, is the parent's to hear.

    A pool's workers would else wait for work for ever, or die in the middle of a shard.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()  # type: ignore[union-attr]
        os._exit(1)

    if parent:
        threading.Thread(target=follow, daemon=True).start()


def find_dask(said: str) -> str:
    """Return the scheduler's address that `said` is, or that stands in the scheduler file `said`; ``local`` stays as it is.

    Raises MissingExtra where Dask is not installed, and InputError.
    """
    try:
        importlib.import_module("distributed")
    except ImportError:
        raise MissingExtra("distributed", "dask") from None
    if said == "local" or ADDRESS.fullmatch(said):
        return said
    try:
        return str(json.loads(Path(said).read_bytes())["address"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{said} is no Dask scheduler; give its address as tcp://HOST:PORT, its scheduler file, or local") from None


@contextlib.contextmanager
def dask(address: str, workers: int) -> Iterator[MakeExecutor]:
    """Give what makes executors on the Dask cluster at `address` (``local``: of `workers` processes, made for the while)."""
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        if address == "local":
            address = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)).scheduler_address
        try:
            client = stack.enter_context(Client(address, set_as_default=False))
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {address} ({error}); see that it runs, and run the same command again"
            ) from None
        yield lambda _: client.get_executor(pure=False)


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    executor: MakeExecutor = processes,
    tick: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Yield ``function(task)`` for every task, as each is done; where a worker dies its task is begun anew.

    `tick` is called now and then meanwhile.
    """
    left, failed = list(tasks), 0
    while left:
        with executor(min(workers, len(left))) as pool:
            try:
                futures = {pool.submit(function, task): task for task in left}
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, TICK_S if tick else None, FIRST_COMPLETED)
                    for future in sorted(done, key=is_lost):  # what is done is told before what is lost
                        result = future.result()
                        left.remove(futures[future])
                        failed = 0
                        yield result
                    if tick:
                        tick()
            except CancelledError:
                raise CmeltError("the Dask scheduler went away; run the same command again to go on") from None
            except lost_worker():
                failed += 1
                if failed == ATTEMPTS:
                    raise CmeltError(f"worker processes died {ATTEMPTS} times (out of memory?); run again with fewer --workers") from None
            except BaseException:
                if isinstance(pool, ProcessPoolExecutor):
                    pool.shutdown(cancel_futures=True)  # cancelled one by one, they upset a pool that then loses a worker
                for future in futures:  # what runs is waited for when the pool closes
                    future.cancel()
                raise


def is_lost(future: Future[Result]) -> bool:
    """Say whether a finished task's worker was lost."""
    return future.cancelled() or isinstance(future.exception(), lost_worker())


def lost_worker() -> tuple[type[BaseException], ...]:
    """Return what an executor raises for a task whose worker died."""
    scheduler = sys.modules.get("distributed.scheduler")
    return (BrokenExecutor, scheduler.KilledWorker) if scheduler else (BrokenExecutor,)
