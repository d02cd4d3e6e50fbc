"""The same recording is recognised in another folder, container and name; a patient on both sides of a split is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmelt.config import load_recipe
from cmelt.ingest import ingest
from cmelt.origins import database_of, recording_of
from cmelt.shards.leaks import find_leaks, overlap
from cmelt.shards.read import ShardFolder
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
    # 145/463 is one recording under two patients in two folds
    assert found["within"][str(ptbxl)] >= 1
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
