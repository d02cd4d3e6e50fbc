"""How far an ingest, or other long work, is: a live display on a terminal, else a plain line now and then; both on standard error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cmelt.shards.store import Store

if TYPE_CHECKING:
    from rich.table import Table

INTERVAL_S = 10.0
"""Between two plain lines."""


class Progress:
    """Counts of shards, recordings and refusals as they are done. A shard in the making counts by the bytes of its ``.part``."""

    def __init__(self, store: Store, shards: int, total: int, record_bytes: float) -> None:
        self.store, self.shards, self.total, self.record_bytes = store, shards, total, record_bytes
        self.done = self.shards_done = self.refused = self.part = 0
        self.began = self.said = time.monotonic()

    def __enter__(self) -> Progress:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True)
        self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4, transient=True)
        self.plain = not self.console.is_terminal  # asked once: rich reads the environment each time
        if not self.plain:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.plain:
            self.live.stop()

    def advance(self) -> None:
        """Count one more recording of the shard in the making."""
        self.part += 1
        self.say()

    def finish(self, planned: int, refused: int) -> None:
        """Count one more shard as done."""
        self.shards_done, self.done, self.refused, self.part = self.shards_done + 1, self.done + planned, self.refused + refused, 0
        self.say()

    def look(self) -> None:
        """Count what lies half-written in the place, made by workers that say nothing until a shard is done."""
        if self.store.path:
            size = 0
            for part in self.store.path.glob("*.tar.*.part"):
                with contextlib.suppress(FileNotFoundError):  # done since it was listed
                    size += part.stat().st_size
            self.part = min(int(size / self.record_bytes), self.total - self.done)
        self.say()

    def rates(self) -> tuple[int, float, float]:
        """Return the recordings done, how many a second, and the seconds that are left at this rate."""
        done = self.done + self.part
        rate = done / max(time.monotonic() - self.began, 1e-9)
        return done, rate, (self.total - done) / rate if done else float("inf")

    def say(self) -> None:
        """Print a plain line where that is the way, and it is time."""
        now = time.monotonic()
        if self.plain and now - self.said > INTERVAL_S:
            self.said = now
            self.console.print(f"ingest: {self.line()}", highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Return how far it is, in a line."""
        done, rate, left_s = self.rates()
        left = f"{left_s // 3600:.0f}:{left_s % 3600 // 60:02.0f}:{left_s % 60:02.0f} left" if left_s < 1e9 else "time left unknown"
        counts = f"{self.shards_done} of {self.shards} shards, {done} of {self.total} recordings, {self.refused} refused"
        return f"{counts}, {rate:.0f} records/s, {left}"

    def table(self) -> Table:
        """Return how far it is, as a bar and a line below it."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid()
        table.add_row(ProgressBar(total=max(self.total, 1), completed=self.done + self.part, width=60))
        table.add_row(f"ingest: {self.line()}")
        return table


@contextlib.contextmanager
def told(what: str, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Give what is to be called with every number of ECGs done: a bar on a terminal, else a plain line now and then; on standard error."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True, quiet=quiet)
    done, said = 0, time.monotonic()
    with Bar(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task(what, total=total)

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            progress.advance(bar, count)
            if not console.is_terminal and done < total and time.monotonic() - said > INTERVAL_S:
                said = time.monotonic()
                console.print(f"{what}: {done} of {total}", soft_wrap=True)

        yield advance
