"""Measure ingest against the usual way and against a floor: ``python -m tests.benchmarks.ingest [--json] [--keep]``.

In one run, in turn, on one core, PTB-XL's recordings to 250 Hz under `clinical`: (a) the usual way, wfdb and scipy and one file a record;
(b) ``cmelt.ingest`` as a user calls it, plan, checks, hashes, index and manifest included, no report known beforehand; (c) the floor:
samples read, one FFT pair, samples written. Then (b) with one worker and with two, on copies enough to outlast their start, beside a
control that only transforms: what two cores can give at that moment. Medians over the rounds; CPU time beside the clock's,
for machines that others use too. What only one way needs is imported there: a spawned worker imports this file too. Recordings from
CMELT_REALDATA (default ../shared/realdata), else simulated.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cmelt.config import IngestRecipe, load_recipe
from cmelt.ingest import ingest
from cmelt.text.reports import clean_ptbxl
from tests.benchmarks.results import options, processor, tell

RECORDS = 637
MIMIC = 800_035
TABLE = "ptbxl_database.csv"
HZ = 250


def raw_folder() -> tuple[Path, bool]:
    """Return the folder of real recordings, or of simulated ones, and whether they are real."""
    from cmelt.simulate import simulate

    real = Path(os.environ.get("CMELT_REALDATA", Path(__file__).parents[2].parent / "shared" / "realdata")) / "ptbxl"
    if real.is_dir():
        return real, True
    made = Path(tempfile.mkdtemp(prefix="cmelt-simulated-"))
    simulate(made / "raw", RECORDS)
    return made / "raw", False


def lay_out(raw: Path, out: Path, copies: int) -> list[Path]:
    """Make `out` a raw folder of the recordings that `raw` has, `copies` times under other names, by links; return the headers of one."""
    with (raw / TABLE).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (raw / f"{row['filename_hr']}.hea").exists()]
    out.mkdir()
    with (out / TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        for copy in range(copies):
            for row in rows:
                there = Path(row["filename_hr"])
                here = out / there.parent / f"c{copy}_{there.name}" if copy else out / there
                here.parent.mkdir(parents=True, exist_ok=True)
                for ending in (".hea", ".dat"):
                    here.with_name(here.name + ending).symlink_to((raw / f"{there}{ending}").resolve())
                table.writerow({**row, "filename_hr": here.relative_to(out)})
    return [raw / f"{row['filename_hr']}.hea" for row in rows]


def usual(headers: list[Path], out: Path) -> None:
    """Convert as scripts do: one recording, one call after the other, one file."""
    import wfdb
    from scipy.io import savemat
    from scipy.signal import butter, filtfilt, iirnotch, resample_poly, sosfiltfilt

    sos, notch = butter(3, [0.5, 100], "band", fs=500, output="sos"), iirnotch(50, Q=30, fs=500)
    for header in headers:
        signal = wfdb.rdrecord(str(header.with_suffix(""))).p_signal.T
        signal = filtfilt(*notch, sosfiltfilt(sos, signal, axis=-1), axis=-1)
        savemat(out / f"{header.stem}.mat", {"signal": resample_poly(signal, 1, 2, axis=-1).astype(np.float32), "fs": HZ})


def ours(raw: Path, out: Path, recipe: IngestRecipe, workers: int = 1) -> None:
    """Convert with cmelt; reports are translated anew."""
    clean_ptbxl.cache_clear()
    ingest("ptbxl", raw, out / "shards", recipe, workers=workers)


def floor(headers: list[Path], out: Path) -> None:
    """Do what no way can do without: read int16, transform 10 s and 5 s of padding there and back in float32, write int16."""
    import scipy.fft

    with (out / "floor").open("wb") as file:
        for header in headers:
            samples = np.fromfile(header.with_suffix(".dat"), "<i2").reshape(-1, 12).T
            padded = np.zeros((12, 2 * samples.shape[1]), np.float32)
            padded[:, : samples.shape[1]] = samples
            back = scipy.fft.irfft(scipy.fft.rfft(padded), padded.shape[1], overwrite_x=True)
            file.write(back[:, : samples.shape[1] : 2].astype("<i2").tobytes())


def transforms(count: int) -> None:
    """Transform a recording's length there and back `count` times."""
    import scipy.fft

    padded = np.ones((12, 10_000), np.float32)
    for _ in range(count):
        scipy.fft.irfft(scipy.fft.rfft(padded), 10_000)


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return the clock's seconds and this process's CPU seconds of `work`."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """Give a new folder below `folder` for the while."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        yield Path(out)


def compare(raw: Path, headers: list[Path], place: Path, rounds: int) -> dict[str, float]:
    """Return milliseconds a record of the three ways, and how ours relates to the others."""
    recipe = load_recipe("ingest", "clinical", [f"signal.fs_hz={HZ}"])
    ways: dict[str, Callable[[Path], None]] = {
        "usual": lambda out: usual(headers, out),
        "ours": lambda out: ours(raw, out, recipe),
        "floor": lambda out: floor(headers, out),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with threadpool_limits(1):  # one thread: one core
        for _ in range(rounds + 1):  # in turn, so that what else the machine does falls on all alike; the first warms up
            for name, way in ways.items():
                with emptied(place) as out:
                    taken[name].append(seconds(lambda way=way, out=out: way(out)))  # type: ignore[misc]
    ms = {name: [1e3 * statistics.median(kind) / len(headers) for kind in zip(*times[1:], strict=True)] for name, times in taken.items()}
    told = {f"ms_{name}": wall for name, (wall, _) in ms.items()} | {f"cpu_ms_{name}": cpu for name, (_, cpu) in ms.items()}
    for at, prefix in enumerate(("", "cpu_")):
        told[f"{prefix}ratio_vs_usual"] = ms["usual"][at] / ms["ours"][at]
        told[f"{prefix}ratio_vs_floor"] = ms["ours"][at] / ms["floor"][at]
    return told


def scale(raw: Path, place: Path, records: int, rounds: int) -> dict[str, float]:
    """Return how much faster two workers are than one, from the call to the manifest, and how much faster two cores transform."""
    recipe = load_recipe("ingest", "clinical", [f"signal.fs_hz={HZ}", "shards.samples_per_shard=256"])
    taken: dict[str, list[float]] = {name: [] for name in ("ours_1", "ours_2", "control_1", "control_2")}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        spread(pool, 10)
        for _ in range(rounds):
            for workers in (1, 2):
                with emptied(place) as out:
                    taken[f"ours_{workers}"].append(seconds(lambda workers=workers, out=out: ours(raw, out, recipe, workers))[0])  # type: ignore[misc]
            taken["control_1"].append(seconds(lambda: pool.submit(transforms, 2 * records).result())[0])
            taken["control_2"].append(seconds(lambda: spread(pool, records))[0])
    best = {name: statistics.median(times) for name, times in taken.items()}
    told = {f"scaling_seconds_{workers}": best[f"ours_{workers}"] for workers in (1, 2)}
    told |= {"scaling_2": best["ours_1"] / best["ours_2"], "control_2": best["control_1"] / best["control_2"]}
    return told


def spread(pool: Executor, count: int) -> None:
    """Transform `count` times on each of two workers."""
    for done in [pool.submit(transforms, count) for _ in range(2)]:
        done.result()


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=16, help="of the recordings, for two workers; 0 leaves them out")
    parser.add_argument("--place", type=Path, help="where to write (default: memory, else the temporary folder)")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    place = arguments.place or (memory if memory.is_dir() and shutil.disk_usage(memory).free > 4e9 else Path(tempfile.gettempdir()))
    raw, real = raw_folder()
    with emptied(place) as work:
        headers = lay_out(raw, work / "raw", 1)
        told: dict[str, Any] = {
            "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
            "records": len(headers),
            "real": real,
            "place": str(place),
            "load": os.getloadavg()[0],
        }
        told |= compare(work / "raw", headers, work, arguments.rounds)
        if arguments.copies:
            lay_out(raw, work / "many", arguments.copies)
            told |= scale(work / "many", work, len(headers) * arguments.copies // 2, 3)
        told["minutes_800035_one_core"] = told["ms_ours"] * MIMIC / 60e3
        if arguments.copies:
            told["efficiency_2"] = told["scaling_2"] / told["control_2"]
            told["minutes_800035_two_cores"] = told["minutes_800035_one_core"] / told["scaling_2"]
    told = {name: round(value, 4) if isinstance(value, float) else value for name, value in told.items()}
    tell("ingest", told, arguments)


if __name__ == "__main__":
    main()
