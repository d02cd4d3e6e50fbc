"""Mutate headers, truncate files: every input must end as a recording or a reason, within 1 s and 500 MB, opening nothing outside RAW.

    python -m tests.benchmarks.fuzz_headers --inputs 100000 [--seed 0] [--keep]

prints what became of them, the slowest input and the highest memory; exits with 1 where one did anything else. With --keep the figures
go to docs/results/fuzz.json.
"""

from __future__ import annotations

import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

from cmelt.config import SignalSettings
from cmelt.datasets.headers import read_about
from cmelt.errors import RecordError
from cmelt.raw import Raw
from cmelt.signal.checks import check
from cmelt.signal.condition import repair, windows
from cmelt.signal.decode import decode
from cmelt.signal.mat import decode_struct
from tests.benchmarks.results import options, tell

PACKAGE = Path(__file__).parents[2]
MOST_S, MOST_BYTES = 1.0, 500 << 20
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "12",
    "1e12",
    "1000000000000",
    "9" * 15,
    "9" * 30,
    "nan",
    "inf",
    "-0",
    "0.0001",
    "1e-300",
    "1e300",
    "4294967296",
]
TOKENS = [
    *NUMBERS,
    "16",
    "212",
    "80",
    "516",
    "508",
    "310",
    "311",
    "61",
    "160",
    "24",
    "32",
    "8",
    "16+24",
    "16x1000000",
    "16x2:5",
    "16+99999999999",
]
TOKENS += [
    "0/mV",
    "1000/mV",
    "200(0)/uV",
    "1e-9/mV",
    "1000/degC",
    "../secret.dat",
    "/etc/passwd",
    "r.dat",
    "~",
    "r/3",
    "r/100000",
    "#Dx: 1",
    "\0",
    "é",
]
TOKENS += ["I", "II", "V1", "aVR", "-aVR", "MLII", "500", "500/250(7)", "360", "s1", "s2", "16:100000000", "212:3"]


def seeds(folder: Path) -> dict[str, str]:
    """Write sound recordings of several formats into `folder`; return the text of each header by its name."""
    rng = np.random.default_rng(0)
    stored = rng.integers(-900, 900, (600, 12)).astype("<i2")
    (folder / "r.dat").write_bytes(stored.tobytes())
    (folder / "r.mat").write_bytes(b"\0" * 24 + stored.tobytes())
    (folder / "p.dat").write_bytes(rng.bytes(600 * 18))
    forms = {
        "plain": ("r.dat", "16"),
        "mat": ("r.mat", "16x1+24"),
        "packed": ("p.dat", "212"),
        "wide": ("p.dat", "24"),
        "small": ("p.dat", "80"),
    }
    lines = {name: "\n".join(f"{file} {form} 1000/mV 16 0 1 2 0 {lead}" for lead in LEADS) for name, (file, form) in forms.items()}
    counts = {"plain": 600, "mat": 600, "packed": 600, "wide": 300, "small": 900}
    texts = {name: f"{name} 12 500 {counts[name]} 10:00:00\n{body}\n# Age: 7\n#Dx: 1,2\n" for name, body in lines.items()}
    texts |= {"s1": texts["plain"].replace("plain", "s1", 1), "s2": texts["mat"].replace("mat", "s2", 1)}
    wfdb.wrsamp(
        "flac",
        500,
        ["mV"] * 12,
        list(LEADS),
        p_signal=stored / 1000,
        fmt=["516"] * 12,
        adc_gain=[1000] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
    )
    texts["flac"] = (folder / "flac.hea").read_text()
    texts["many"] = "many/2 12 500 1200\ns1 600\ns2 600\n"
    for name, text in texts.items():
        (folder / f"{name}.hea").write_text(text)
    return texts


def struct_file() -> bytes:
    """Return a sound CPSC2018 file: a compressed struct with data (12, 600)."""

    def element(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)

    def array(kind: int, shape: tuple[int, ...], *rest: bytes) -> bytes:
        return element(14, element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + b"".join(rest))

    data = np.random.default_rng(0).normal(0, 0.5, (12, 600))
    fields = array(6, (1, 1), element(1, b""), element(9, struct.pack("<d", 50.0)))
    fields += array(6, data.shape, element(1, b""), element(9, data.tobytes(order="F")))
    names = b"age".ljust(8, b"\0") + b"data".ljust(8, b"\0")
    whole = array(2, (1, 1), element(1, b"ECG"), struct.pack("<HHi", 5, 4, 8), element(1, names), fields)
    packed = zlib.compress(whole)
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def mutate(text: str, dice: random.Random) -> str:
    """Return a header with one to four things changed: tokens swapped for hostile ones, lines lost or doubled, bytes broken."""
    lines = text.split("\n")
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(lines)) if dice.random() < 0.7 else 0
        tokens = lines[at].split(" ")
        kind = dice.random()
        if kind < 0.6:
            tokens[dice.randrange(len(tokens))] = dice.choice(TOKENS)
            lines[at] = " ".join(tokens)
        elif kind < 0.7:
            lines[at] = lines[dice.randrange(len(lines))]
        elif kind < 0.8 and len(lines) > 1:
            del lines[at]
        elif kind < 0.9 and lines[at]:
            place = dice.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + chr(dice.randrange(256)) + lines[at][place + dice.randrange(3) :]
        else:
            for number in range(len(lines)):  # every line alike, as a wrong writer would
                lines[number] = lines[number].replace(" 16", f" {dice.choice(TOKENS)}", 1)
    return "\n".join(lines)


def fuzz(inputs: int, seed: int = 0) -> dict[str, Any]:
    """Decode, check and condition `inputs` mutated recordings; return what became of them and every failure."""
    dice, outcome, failures = random.Random(seed), Counter[str](), []
    folder = Path(tempfile.mkdtemp(prefix="fuzz", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    texts = seeds(folder)
    sound, settings, raw = struct_file(), SignalSettings(), Raw(folder)
    (folder.parent / "secret.dat").write_bytes(b"\0" * 24_000)
    for name in texts:
        windows(decode(raw, f"{name}.hea"), settings, 50.0)  # imports happen before anything is watched
    opened: list[str] = []
    watching = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if (
            watching[0]
            and event == "open"
            and isinstance(args[0], str)
            and not args[0].startswith((str(folder), sys.prefix, sys.base_prefix, "/usr", "/proc", str(PACKAGE)))
        ):
            opened.append(args[0])

    sys.addaudithook(hook)
    slowest, before = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for number in range(inputs):
            name = dice.choice(list(texts))
            if number % 5 == 4:
                data = bytearray(sound[: dice.randrange(len(sound))] if dice.random() < 0.5 else sound)
                for _ in range(dice.randint(0, 4)):
                    if data:
                        data[dice.randrange(min(len(data), 400))] = dice.randrange(256)
                (folder / "x.mat").write_bytes(bytes(data))
                what, read = repr(bytes(data[:200])), lambda: decode_struct(raw, "x.mat", fs_hz=500, leads=LEADS)
            else:
                what = mutate(texts[name], dice)
                cut = dice.random() < 0.2
                if cut:
                    of = folder / ("flac_1.dat" if name == "flac" else "r.dat")
                    whole = of.read_bytes()
                    of.write_bytes(whole[: dice.randrange(len(whole))])
                (folder / "x.hea").write_bytes(what.encode("utf-8", "replace"))
                read = lambda: read_about(what) and decode(raw, "x.hea")  # noqa: B023, E731 - called at once
            began = time.process_time()
            try:
                decoded = read()
                flags = repair(decoded, settings) + check(decoded.signal, decoded.fs_hz, decoded.present)
                found = windows(decoded, settings, 50.0)
                outcome["recording" if flags is not None and np.isfinite(found[0].signal).all() else "not finite"] += 1
            except RecordError as error:
                outcome[error.reason] += 1
            except BaseException as error:  # noqa: BLE001 - whatever else comes is what is looked for
                failures.append(f"{type(error).__name__}: {error}: {what[:300]!r}")
            took = time.process_time() - began
            slowest = max(slowest, took)
            if took > MOST_S:
                failures.append(f"{took:.2f} s: {what[:300]!r}")
            if number % 5 != 4 and cut:
                of.write_bytes(whole)
    finally:
        watching[0] = False
        shutil.rmtree(folder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > MOST_BYTES:
        failures.append(f"memory grew by {grown >> 20} MB")
    failures += [f"opened {path}" for path in dict.fromkeys(opened)]
    return {
        "inputs": inputs,
        "outcome": dict(outcome.most_common()),
        "slowest_s": round(slowest, 3),
        "grown_mb": grown >> 20,
        "failures": failures,
    }


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    result = fuzz(given.inputs, given.seed)
    failed = result["failures"]
    tell("fuzz", result | {"failures": len(failed)}, given)
    print("\n".join(failed[:20]))
    sys.exit(bool(failed))
