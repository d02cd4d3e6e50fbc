"""The same recording is recognised in another folder, container and name; a patient on both sides of a split is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cmelt.config import DataSettings, load_recipe
from cmelt.errors import ShardError
from cmelt.ingest import ingest
from cmelt.origins import database_of, recording_of
from cmelt.shards.leaks import find_leaks, overlap
from cmelt.shards.read import ShardFolder
from cmelt.training.corpus import Corpus
from cmelt.verify import verify
from tests.datasets import layouts


@pytest.mark.parametrize(
    ("key", "dataset", "recording"),
    [
        ("00007_hr", "ptbxl", "ptbxl/7"),
        ("00007_lr_w0003", "ptbxl", "ptbxl/7"),
        ("HR00007", "cinc2021", "ptbxl/7"),
        ("A0007_w0001", "cpsc2018", "cpsc2018/7"),
        ("A0007", "wfdb", "cpsc2018/7"),
        ("JS00007", "csn", "csn/7"),
        ("HR00007x", "cinc2021", ""),
        ("00007_hr", "ptbxl-simulated", ""),
        ("A0007", "mimic-iv-ecg", ""),
    ],
)
def test_names_by_which_recordings_are_known(key: str, dataset: str, recording: str) -> None:
    assert recording_of(key, dataset) == recording


def test_databases_by_folder_and_by_name() -> None:
    paths = ["x/georgia/g1/A0001.hea", "JS10646.hea", "JS10647.mat", "HR00001.hea", "S0001.hea", "records500/00000/00001_hr.hea"]
    assert [database_of(path) for path in paths] == ["georgia", "chapman_shaoxing", "ningbo", "ptb-xl", "ptb", ""]


def test_between_real_folders(realdata: Path, tmp_path: Path) -> None:
    recipe = load_recipe("ingest", "paper")
    ptbxl, cinc = tmp_path / "ptbxl", tmp_path / "cinc"
    ingest("ptbxl", realdata / "ptbxl", ptbxl, recipe, workers=1)
    ingest("cinc2021", realdata / "cinc2021", cinc, recipe, workers=1)
    folders = [ShardFolder(ptbxl), ShardFolder(cinc)]
    found = find_leaks(folders)
    shared = {key for key in folders[1].column("key") if key[:2] == "HR"} & {f"HR{key[:5]}" for key in folders[0].column("key")}
    assert found["between"] == {f"{cinc} and {ptbxl}": len(shared)} or found["between"] == {f"{ptbxl} and {cinc}": len(shared)}
    assert len(shared) > 5
    # PTB-XL 1.0.1's duplicates; 145/463 is one recording under two patients in two folds
    assert found["within"][str(ptbxl)] == 5
    flagged = {key[:5] for key, flags in zip(folders[0].column("key"), folders[0].column("flags"), strict=True) if "duplicate" in flags}
    assert [len(flagged & pair) for pair in ({"00137", "00138"}, {"00143", "00144"}, {"00145", "00463"}, {"00456", "00457"})] == [1] * 4
    assert folders[0].manifest["counts"]["flags"]["duplicate"] == len(flagged) == 5
    held = overlap(folders[1], [folders[0]])
    splits = dict(zip((key[:5] for key in folders[0].column("key")), folders[0].column("split"), strict=True))
    expected = [key[:2] == "HR" and splits.get(key[2:]) in ("val", "test") for key in folders[1].column("key")]
    assert held.tolist() == expected
    assert found["leaking_patients"] == 0


def test_patients_and_windows(realdata: Path, tmp_path: Path) -> None:
    signals = layouts.real_mv(realdata, 3)
    for number, signal in enumerate(signals):
        layouts.write_wfdb(tmp_path / f"raw/r{number}", signal, 500)
    table = tmp_path / "table.csv"
    table.write_text("key,patient,split\nr0,a,train\nr1,a,test\nr2,b,train\n")
    ingest(
        "wfdb",
        tmp_path / "raw",
        tmp_path / "out",
        load_recipe("ingest", "paper", ["signal.window=all", "signal.duration_s=2"]),
        table=table,
    )
    folder = ShardFolder(tmp_path / "out")
    found = find_leaks([folder])
    assert (len(folder), found["recordings"], found["leaking"]) == (15, 0, 0)
    assert found["leaking_patients_examples"] == ["wfdb/a"]
    assert overlap(folder, [folder]).sum() == 5  # the test recording's own windows


def test_later_copies_are_flagged_whoever_made_the_shards(
    make_raw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker or two, interrupted before the end, grown from a part: the same recordings are flagged, in the same bytes."""
    raw = make_raw(12, seconds=4, rates=(500,))
    for copy in (4, 9, 11):
        shutil.copy(raw / "records500/00000/00002_hr.dat", raw / f"records500/00000/{copy:05d}_hr.dat")
    recipe = load_recipe("ingest", "paper", ["shards.samples_per_shard=2", "signal.duration_s=2", "signal.window=all"])
    ingest("ptbxl", raw, tmp_path / "one", recipe, workers=1)
    ingest("ptbxl", raw, tmp_path / "two", recipe, workers=2)
    with monkeypatch.context() as patch:
        patch.setattr("cmelt.ingest.commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest("ptbxl", raw, tmp_path / "again", recipe, workers=1)
    ingest("ptbxl", raw, tmp_path / "again", recipe, workers=1)
    assert len({(tmp_path / name / "index.parquet").read_bytes() for name in ("one", "two", "again")}) == 1
    rows = pq.read_table(tmp_path / "one/index.parquet").to_pylist()
    same = [row["key"] for row in rows if row["key"][:5] in ("00002", "00004", "00009", "00011")]
    assert [row["key"] for row in rows if "duplicate" in row["flags"]] == same[2:]  # two windows a recording
    assert verify(tmp_path / "one")["samples"] == 24
    ingest("ptbxl", raw, tmp_path / "grown", recipe, workers=1, limit=5)
    ingest("ptbxl", raw, tmp_path / "grown", recipe, workers=1, extend=True)
    assert verify(tmp_path / "grown")["samples"] == 24
    assert ShardFolder(tmp_path / "grown").manifest["counts"]["flags"]["duplicate"] == 3


def test_training_leaves_out_what_any_folder_holds_out(make_raw: Callable[..., Path], tmp_path: Path) -> None:
    """Dropped and counted, or refused; and reports of too few words."""
    raw = make_raw(20, seconds=4, rates=(500,))
    recipe = load_recipe("ingest", "paper", ["signal.duration_s=2"])
    ingest("ptbxl", raw, tmp_path / "ptbxl", recipe, workers=1)  # of 20 records the 8th, 18th validate, the 9th, 19th test
    files = tmp_path / "cinc/ptb-xl"
    files.mkdir(parents=True)
    for record in range(1, 21):
        shutil.copy(raw / f"records500/00000/{record:05d}_hr.dat", files / f"{record:05d}_hr.dat")
        header = (raw / f"records500/00000/{record:05d}_hr.hea").read_text()
        (files / f"HR{record:05d}.hea").write_text(f"{header}#Dx: 426783006\n")
    table = tmp_path / "table.csv"
    table.write_text("key,split,report\n" + "".join(f"HR{n:05d},train,{'sinus' if n < 4 else 'a b c'}\n" for n in range(1, 21)))
    ingest("wfdb", tmp_path / "cinc", tmp_path / "wfdb", recipe, workers=1, table=table)
    folders = [tmp_path / "ptbxl", tmp_path / "wfdb"]
    corpus = Corpus(folders, "train")
    assert (len(corpus), corpus.leaking, corpus.few_words) == (32, 4, 0)
    assert len(Corpus(folders, "train", data=DataSettings(leaks="keep"))) == 36
    with pytest.raises(ShardError, match="4 train samples are held out"):
        Corpus(folders, "train", data=DataSettings(leaks="refuse"))
    assert (len(Corpus(folders[:1], "train")), len(Corpus(folders, "val"))) == (16, 2)
    corpus = Corpus(folders[1:], "train", data=DataSettings(min_words=3))
    assert (len(corpus), corpus.few_words, corpus.facts()["few_words"]) == (17, 3, 3)
