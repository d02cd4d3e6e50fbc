"""The verb: a tokenizer of the training split alone; tables of tokens and back; a picture; one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.signal import resample_poly
from typer.testing import CliRunner

from cmelt.cli import app
from cmelt.config import load_recipe
from cmelt.errors import InputError, OutputError, ShardError
from cmelt.ingest import ingest
from cmelt.shards.read import ShardFolder
from cmelt.tokenizer import decode, encode, plot, train
from cmelt.tokens.ecg import ECGTokenizer
from tests.conftest import MakeShards


@pytest.fixture(scope="module")
def folder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tokenizer of the made-up shards."""
    out = tmp_path_factory.mktemp("tokenizer") / "T"
    train([shards], out, merges=200, records=40)
    return out


def test_there_and_back_through_the_command_line(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = ShardFolder(shards).column("key")[0]
    for words in (
        ["train", str(shards), "--out", "T", "--merges", "200", "--records", "40"],
        ["encode", str(shards), "--tokenizer", "T", "--split", "test"],
        ["decode", "tokens.parquet", "--tokenizer", "T"],
        ["plot", str(shards), key, "one.png", "--tokenizer", "T"],
    ):
        done = CliRunner().invoke(app, ["tokenizer", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    opened, tokenizer = ShardFolder(shards), ECGTokenizer.from_folder("T")
    rows = opened.rows("test")
    table = pq.read_table("tokens.parquet")
    assert table["key"].to_pylist() == [opened.column("key")[row] for row in rows]
    assert np.load("ecg.npy").tobytes() == tokenizer.quantised(opened.ecg_mv(rows)).tobytes()
    with Image.open("one.png") as image:
        assert image.size[0] > 1000
    assert not list(tmp_path.glob("*.part"))


def test_only_the_training_split_is_learnt_from(shards: Path, tmp_path: Path, make_shards: MakeShards, folder: Path) -> None:
    opened = ShardFolder(shards)
    values = np.sort(opened.ecg(opened.rows("train")).ravel())
    scale = ECGTokenizer.from_folder(folder).scale
    assert (scale.low_mv, scale.high_mv) == pytest.approx((values[len(values) // 100] / 1000, values[-len(values) // 100] / 1000), abs=1e-3)
    low = float((opened.ecg(np.arange(len(opened))) / 1000 < scale.low_mv).mean())
    assert 0 < low < 0.02
    other = make_shards(tmp_path / "other", 60, seed=1)
    summary = train([shards, other], tmp_path / "both", merges=100, records=30)
    assert (summary["records"], summary["records_merged"], summary["measured_on"]) == (240, 30, "val")
    with pytest.raises(ShardError, match="no recording of the training split where fold > 8"):
        train([shards], tmp_path / "none", where="fold > 8")
    assert not (tmp_path / "none").exists()


def test_what_is_told_is_so(shards: Path, folder: Path, tmp_path: Path) -> None:
    summary = encode([shards], folder, tmp_path / "all.parquet")
    opened, tokenizer = ShardFolder(shards), ECGTokenizer.from_folder(folder)
    ecg = opened.ecg_mv(np.arange(len(opened)))
    off = 1000 * (tokenizer.quantised(ecg).astype(float) - ecg)
    tokens = sum(len(row) for row in pq.read_table(tmp_path / "all.parquet")["tokens"].to_pylist())
    assert summary["tokens"] == tokens
    assert summary["compression"] == pytest.approx(ecg.size / tokens, abs=1e-3)
    assert (summary["rmse_uv"], summary["mean_error_uv"]) == pytest.approx(((off**2).mean() ** 0.5, np.abs(off).mean()), abs=0.01)
    clipped = (ecg < tokenizer.scale.low_mv) | (ecg > tokenizer.scale.high_mv)
    assert summary["clipped_percent"] == pytest.approx(100 * clipped.mean(), abs=1e-3)


def test_a_tokenizer_sees_its_leads_at_its_rate(
    shards: Path, tmp_path: Path, make_shards: MakeShards, capsys: pytest.CaptureFixture[str]
) -> None:
    train([shards], tmp_path / "T", merges=60, records=40, leads=("V5", "II"), fs_hz=50.0)
    encode([shards], tmp_path / "T", tmp_path / "t.parquet", "test")
    decode(tmp_path / "t.parquet", tmp_path / "T", tmp_path / "e.npy")
    opened, tokenizer = ShardFolder(shards), ECGTokenizer.from_folder(tmp_path / "T")
    ecg = opened.ecg_mv(opened.rows("test"))
    back = np.load(tmp_path / "e.npy")
    assert (tokenizer.scale.leads, back.shape) == (("V5", "II"), (len(ecg), 2, 160))
    for place, lead in enumerate((10, 1)):  # below 25 Hz what comes back runs as the lead did
        smooth = resample_poly(ecg[:, lead], 1, 2, axis=1)
        assert np.abs(back[:, place] - tokenizer.quantised(smooth)).max() <= tokenizer.scale.step_mv
    assert capsys.readouterr().err == "", "little work says nothing where there is no terminal"
    with pytest.raises(InputError, match="no lead V9"):
        train([shards], tmp_path / "U", leads=("V9",))


def test_errors_say_what_to_do(shards: Path, folder: Path, tmp_path: Path, make_shards: MakeShards) -> None:
    slower = make_shards(tmp_path / "slower", 20, fs_hz=50.0)
    (tmp_path / "mine.parquet").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("mine")
    encode([shards], folder, tmp_path / "t.parquet", "val")
    train([shards], tmp_path / "U", symbols=20, merges=10, records=5)
    with pytest.raises(InputError, match="50 Hz for a tokenizer of 100 Hz"):
        encode([slower], folder, tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()
    with pytest.raises(InputError, match="50 Hz for a tokenizer of 100 Hz"):
        plot(slower, "00000", folder, tmp_path / "f.png")
    with pytest.raises(ShardError, match="differ in fs_hz"):
        train([shards, slower], tmp_path / "V")
    with pytest.raises(ShardError, match="did you mean"):
        plot(shards, "0000", folder, tmp_path / "f.png")
    with pytest.raises(InputError, match="another tokenizer"):
        decode(tmp_path / "t.parquet", tmp_path / "U", tmp_path / "e.npy")
    with pytest.raises(InputError, match="no table of tokens"):
        decode(tmp_path / "mine.parquet", folder, tmp_path / "e.npy")
    with pytest.raises(OutputError, match="choose another --out"):
        encode([shards], folder, tmp_path / "mine.parquet")
    with pytest.raises(OutputError, match="choose another --out"):
        train([shards], tmp_path / "mine")
    with pytest.raises(OutputError, match=r"\.npy"):
        decode(tmp_path / "t.parquet", folder, tmp_path / "e.txt")
    for wrong in ({"symbols": 1}, {"merges": 70_000}, {"clip_percent": 50.0}):
        with pytest.raises(InputError, match="give"):
            train([shards], tmp_path / "V", **wrong)


def test_real_recordings_compress_and_come_back(realdata: Path, tmp_path: Path) -> None:
    recipe = load_recipe("ingest", "clinical", ["signal.fs_hz=100"])
    ingest("ptbxl", realdata / "ptbxl", tmp_path / "shards", recipe, workers=1, records100=True, limit=60)
    wide, narrow = (train([tmp_path / "shards"], tmp_path / f"T{clip}", merges=800, clip_percent=clip) for clip in (0.1, 1.0))
    assert narrow["compression"] > 3
    assert narrow["clipped_percent"] > wide["clipped_percent"]
    assert narrow["rmse_uv"] > wide["rmse_uv"], "on ECGs the peaks weigh more than the steps"
    encode([tmp_path / "shards"], tmp_path / "T1.0", tmp_path / "t.parquet")
    decode(tmp_path / "t.parquet", tmp_path / "T1.0", tmp_path / "e.npy")
    opened, tokenizer = ShardFolder(tmp_path / "shards"), ECGTokenizer.from_folder(tmp_path / "T1.0")
    assert np.load(tmp_path / "e.npy").tobytes() == tokenizer.quantised(opened.ecg_mv(np.arange(len(opened)))).tobytes()
    assert json.loads((tmp_path / "T1.0" / "ecg_tokenizer.json").read_text())["about"]["datasets"] == ["ptbxl"]
