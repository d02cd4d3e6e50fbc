"""Every family, from its published layout to shards: what is kept, refused and flagged; rows of the table and recordings found add up."""

from __future__ import annotations

import csv
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cmelt.datasets.published
import cmelt.inspect
from cmelt.config import load_recipe
from cmelt.datasets import DATASETS, list_datasets, open_dataset
from cmelt.datasets.published import differences
from cmelt.datasets.splits import apply_splits, read_splits
from cmelt.errors import InputError
from cmelt.ingest import IngestSummary, ingest
from cmelt.labels import load_vocabulary
from cmelt.raw import Raw
from cmelt.record import LEADS, Refused, Source
from cmelt.shards.read import ShardFolder
from cmelt.signal.decode import decode
from tests.conftest import write_raw
from tests.datasets import layouts


def shards(
    dataset: str, raw: Path, out: Path, *changes: str, **options: Any
) -> tuple[IngestSummary, ShardFolder, dict[str, dict[str, Any]]]:
    """Ingest with recipe `paper`; every recording must be accounted for."""
    summary = ingest(dataset, raw, out, load_recipe("ingest", "paper", list(changes)), workers=1, **options)
    folder = ShardFolder(out)
    counts = folder.manifest["counts"]
    assert counts["kept"] + sum(counts["refused"].values()) == counts["rows"]
    assert counts["windows"] == len(folder)
    assert len(pq.read_table(out / "rejects.parquet")) == sum(counts["refused"].values())
    return summary, folder, {row["key"]: row for row in folder.index.to_pylist()}


def test_cinc2021(realdata: Path, tmp_path: Path) -> None:
    summary, folder, rows = shards("cinc2021", realdata / "cinc2021", tmp_path / "out")
    assert (summary.kept, summary.refused) == (93, {})
    assert summary.differences == ["93 recordings were found, 88,253 are published: this is not the whole data set as published"]
    assert "no patient ids" in folder.manifest["split_rule"]
    assert {key for key, row in rows.items() if "flat_lead" in row["flags"]} == {"JS20004", "JS20008"}
    a1 = rows["A0001"]
    assert (a1["age"], a1["sex"], a1["codes"], a1["report"]) == (74, "male", ["59118001"], "right bundle branch block.")
    assert rows["JS20000"]["codes"] == ["284470004", "427084000", "698252002", "55930002"]
    assert rows["JS20000"]["sex"] == "female"
    assert rows["E00001"]["age"] is None
    assert (rows["S0001"]["fs_raw_hz"], rows["S0001"]["raw_duration_s"]) == (1000, 38.4)
    assert all(("report_from_labels" in row["flags"]) == bool(row["report"]) for row in rows.values())
    page = cmelt.inspect.page(tmp_path / "out", tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("Classes: cinc2021", "CRBBB|RBBB", "right bundle branch block", "patients not told"))
    truth = Counter(name for row in rows.values() for name in load_vocabulary("cinc2021").classes_of(row["codes"]))
    expected: Counter[str] = Counter()
    with (realdata / "cinc2021/mapping/weights.csv").open() as file:
        groups = [set(name.split("|")) for name in next(csv.reader(file))[1:]]
    for header in (realdata / "cinc2021/training").glob("*/*.hea"):
        line = next(line for line in header.read_text().splitlines() if "Dx:" in line)
        codes = {code.strip() for code in line.partition(":")[2].split(",")}
        expected.update(name for name, group in zip(load_vocabulary("cinc2021").classes, groups, strict=True) if group & codes)
    assert truth == expected == Counter(summary.classes)  # those of no recording are 0 in the summary
    # HR00001 is PTB-XL 1, bit for bit
    assert rows["HR00001"]["signal_sha1"] == decode(Raw(realdata / "ptbxl"), "records500/00000/00001_hr.hea").signal_sha1


def test_cinc2021_by_database(realdata: Path, tmp_path: Path) -> None:
    _, folder, rows = shards("cinc2021", realdata / "cinc2021", tmp_path / "out", databases="georgia,ptb")
    assert {key[0] for key in rows} == {"E", "S"}
    assert folder.manifest["options"] == {"databases": ["georgia", "ptb"]}
    sources = list(open_dataset("cinc2021", Raw(realdata / "cinc2021")).sources())
    assert {source.mains_hz for source in sources if isinstance(source, Source) and source.key[0] == "E"} == {60}
    with pytest.raises(InputError, match="did you mean 'georgia'"):
        open_dataset("cinc2021", Raw(realdata / "cinc2021"), databases=["gorgia"])


@pytest.mark.parametrize("dataset", ["cinc2021", "wfdb"])
def test_headers_of_2020(realdata: Path, tmp_path: Path, dataset: str) -> None:
    """Wrong gains are righted and flagged, names that end in .mat are read, and the samples are the raw ones at 1000 adu/mV."""
    variants = realdata / "cinc2020_header_variants"
    _, folder, rows = shards(dataset, variants, tmp_path / "out", "signal.fs_hz=500")
    assert len(rows) == 15
    assert {key for key, row in rows.items() if "gain_corrected" in row["flags"]} == {key for key in rows if key[0] in "EHS"}
    assert not any("gain_doubtful" in row["flags"] or "amplitude_unusual" in row["flags"] for row in rows.values())
    # what is at hand under a right header too is the same recording
    right = {path.stem: decode(Raw(path.parent), path.name).signal_sha1 for path in (realdata / "cinc2021/training").glob("*/*.hea")}
    right["HR00003"] = decode(Raw(realdata / "ptbxl"), "records500/00000/00003_hr.hea").signal_sha1
    assert all(row["signal_sha1"] == right[key] for key, row in rows.items())
    for row, key in enumerate(folder.column("key")):
        if rows[key]["fs_raw_hz"] == 500:
            stored = np.frombuffer((variants / f"{key}.mat").read_bytes()[24:], "<i2").reshape(-1, 12).T
            start = round(rows[key]["start_s"] * 500)
            np.testing.assert_array_equal(folder.ecg([row])[0], stored[:, start : start + 5000])


def test_a_doubtful_gain_is_kept_and_flagged(tmp_path: Path) -> None:
    layouts.write_wfdb(tmp_path / "georgia/E00001", layouts.incart(tmp_path / "x", 0.2)[:, :2570] * 2, 257, gain=4880, mat=True)
    shutil.rmtree(tmp_path / "x")
    _, _, rows = shards("cinc2021", tmp_path, tmp_path / "out")
    assert "gain_doubtful" in rows["E00001"]["flags"]
    assert "gain_corrected" not in rows["E00001"]["flags"]


def test_incart_and_windows(tmp_path: Path) -> None:
    mv = layouts.incart(tmp_path / "raw")
    for window, starts in (("first", [0.0]), ("centre", [895.0]), ("all", [10.0 * n for n in range(180)])):
        summary, folder, rows = shards("cinc2021", tmp_path / "raw", tmp_path / window, f"signal.window={window}", "signal.fs_hz=257")
        assert (summary.kept, len(folder)) == (1, len(starts))
        assert sorted(row["start_s"] for row in rows.values()) == starts
        assert {row["codes"][0] for row in rows.values()} == {"427172004"}
    assert sorted(rows)[:2] == ["I0001_w0000", "I0001_w0001"]
    assert len({row["signal_sha1"] for row in rows.values()}) == 1
    at = folder.column("key").index("I0001_w0017")
    np.testing.assert_allclose(folder.ecg_mv([at])[0], mv[:, 17 * 2570 : 18 * 2570], atol=1e-3)


def test_what_is_missing_is_named(realdata: Path, tmp_path: Path) -> None:
    raw = tmp_path / "training/georgia"
    raw.mkdir(parents=True)
    for name in ("E00001.hea", "E00001.mat", "E00002.hea", "E00003.mat"):
        shutil.copy(realdata / "cinc2021/training/georgia" / name, raw / name)
    (raw / "E00004.hea").write_text("E00004 1 500 10\n../x.mat 16+24 1000/mV 16 0 0 0 0 I\n")
    (raw / "RECORDS").write_text("E00001\nE00009\n../E00010\ng1/\n")
    summary, _, _ = shards("cinc2021", tmp_path, tmp_path / "out")
    rejects = {row["key"]: row["reason"] for row in pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()}
    assert summary.kept == 1
    outside = {"E00004": "path_outside", "E00010": "path_outside"}
    assert rejects == {"E00002": "missing_file", "E00003": "missing_file", "E00009": "missing_file", **outside}
    with pytest.raises(InputError, match="no WFDB headers"):
        ingest("cinc2021", realdata / "splits", tmp_path / "none", load_recipe("ingest", "paper"))


def test_csn(realdata: Path, tmp_path: Path) -> None:
    keys = layouts.csn(realdata, tmp_path / "raw")
    _, folder, rows = shards("csn", tmp_path / "raw", tmp_path / "out")
    assert sorted(rows) == keys
    assert folder.manifest["dataset_version"] == "1.0.0"
    assert rows["JS00001"]["source"] == "WFDBRecords/00/000/JS00001.hea"
    assert rows["JS00001"]["codes"] == ["164889003", "59118001", "164934002"]
    assert rows["JS00001"]["report"] == "atrial fibrillation. right bundle branch block. t wave abnormal."


def test_cpsc2018(realdata: Path, tmp_path: Path) -> None:
    summary, folder, rows = shards("cpsc2018", realdata / "cpsc2018", tmp_path / "out")
    assert (summary.kept, summary.refused) == (7, {"missing_file": 6870})
    assert rows["A1985"]["codes"] == ["8"]
    from scipy.io import loadmat

    for row, key in enumerate(folder.column("key")):
        truth = loadmat(realdata / f"cpsc2018/training_set/{key}.mat")["ECG"][0, 0]
        start = round(rows[key]["start_s"] * 500)
        window = truth["data"][:, start : start + 5000]
        np.testing.assert_allclose(folder.ecg_mv([row])[0][:, : window.shape[1]], window, atol=0.51e-3)
    labels = Counter()
    for item in open_dataset("cpsc2018", Raw(realdata / "cpsc2018")).sources():
        labels[type(item)] += 1
    assert labels == {Source: 7, Refused: 6870}


def test_cpsc2018_with_its_first_four_columns(realdata: Path, tmp_path: Path) -> None:
    """Age and sex come from the file where the table lacks them; a label that is none of nine, and a contradiction, are refused."""
    for name in ("A1980", "A1981", "A1982", "A1983"):
        shutil.copy(realdata / f"cpsc2018/training_set/{name}.mat", tmp_path)
    lines = ["Recording,First_label,Second_label,Third_label", "A1980,1,,", "A1981,5,2,", "A1982,12,,", "A1984,3,,"]
    (tmp_path / "REFERENCE.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "more").mkdir()
    shutil.copy(tmp_path / "A1980.mat", tmp_path / "more")
    (tmp_path / "more/REFERENCE.csv").write_text("\n".join([lines[0], "A1980,1,,", "A1981,5,,"]) + "\n")
    _, _, rows = shards("cpsc2018", tmp_path, tmp_path / "out")
    assert (rows["A1980"]["age"], rows["A1980"]["sex"], rows["A1980"]["report"]) == (52, "male", "normal sinus rhythm.") or rows["A1980"][
        "report"
    ]
    assert rows["A1980"]["age"] == 52
    assert rows["A1983"]["codes"] == []
    rejects = {row["source"]: row["reason"] for row in pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()}
    expected = {"A1981.mat": "bad_row", "A1982.mat": "bad_row", "A1984.mat": "missing_file", "more/A1980.mat": "duplicate_key"}
    assert rejects == expected


def test_published_split_files(realdata: Path, tmp_path: Path) -> None:
    splits = read_splits(realdata / "splits/merl_cpsc2018")
    assert Counter(splits.of.values()) == {"train": 4950, "val": 551, "test": 1376}
    assert Counter(read_splits(realdata / "splits/merl_chapman").of.values()) == {"val": 1860}
    identification = read_splits(realdata / "splits/patient_identification")
    assert Counter(identification.of.values()) == {"train": 3586, "val": 1216}
    found: list[dict[str, str]] = []
    for copy in (False, True):  # the lists name the copy of 500 Hz, and split both
        sources = open_dataset("ptbxl", Raw(realdata / "ptbxl"), records100=copy).sources()
        kept = (item for item in apply_splits(sources, identification) if isinstance(item, Source))
        found.append({source.key[:5]: source.split for source in kept})
    assert Counter(found[0].values()) == {"train": 60, "val": 16}
    assert found[1]
    assert found[1].items() <= found[0].items()
    summary, folder, rows = shards("cpsc2018", realdata / "cpsc2018", tmp_path / "out", splits=realdata / "splits/merl_cpsc2018")
    assert {key: row["split"] for key, row in rows.items()} == {key: splits.of[key] for key in rows}
    assert "icbeb_train.csv" in folder.manifest["split_rule"]
    summary, _, rows = shards("cinc2021", realdata / "cinc2021", tmp_path / "js", splits=realdata / "splits/merl_chapman")
    assert summary.refused["no_split"] == 93 - len(rows)


def test_mimic(realdata: Path, tmp_path: Path) -> None:
    signals = layouts.mimic(realdata, tmp_path / "raw")
    layouts.write_wfdb(tmp_path / "raw/files/p1000/p10000999/s40000000/40000000", signals[0], 500)
    summary, folder, rows = shards("mimic-iv-ecg", tmp_path / "raw", tmp_path / "out")
    assert (summary.kept, summary.refused) == (5, {"missing_file": 1})
    assert {key: row["patient_id"] for key, row in rows.items()}["40000000"] == "10000999"
    assert rows["40689238"]["split"] == rows["44458630"]["split"]
    assert "patient-wise" in folder.manifest["split_rule"]
    for key, signal in zip(("40689238", "44458630", "45090959", "41420867"), signals, strict=True):
        row = folder.column("key").index(key)
        assert rows[key]["report_raw"] == f"*** Sinus rhythm {key}. Borderline EKG ==="
        assert rows[key]["report"] == f"sinus rhythm {key}. borderline ecg."
        whole = np.where(np.isnan(signal), folder.ecg_mv([row])[0], signal)
        np.testing.assert_allclose(folder.ecg_mv([row])[0], whole, atol=2.6e-3)
        assert "limb_leads_disagree" not in rows[key]["flags"]  # MIMIC's lead order went by name
    assert "nan_filled" in rows["45090959"]["flags"]


def test_code15(realdata: Path, tmp_path: Path) -> None:
    signals = layouts.code15(realdata, tmp_path / "raw")
    summary, folder, rows = shards("code15", tmp_path / "raw", tmp_path / "out", "signal.fs_hz=400")
    assert summary.refused == {"missing_file": 2, "no_signal": 2}  # two exams without tracings; a filler row and an empty one
    assert set(rows) == set(signals)
    exam = rows["358121"]
    assert (exam["patient_id"], exam["age"], exam["sex"], exam["codes"]) == ("1295924", 54, "male", ["RBBB"])
    assert exam["raw_duration_s"] == 2934 / 400
    for row, key in enumerate(folder.column("key")):
        kept = min(4000, signals[key].shape[1])
        start = round(rows[key]["start_s"] * 400)
        np.testing.assert_allclose(
            folder.ecg_mv([row])[0][:, :kept], signals[key][:, start : start + kept].clip(-32.767, 32.767), atol=0.51e-3
        )


@pytest.mark.parametrize("leads", [("aVR", "aVL", "aVF"), ("aVL", "aVF", "aVR")])
def test_code_test_decides_the_order_of_its_leads(realdata: Path, tmp_path: Path, leads: tuple[str, ...]) -> None:
    signals = [signal[:, :4000] for signal in layouts.real_mv(realdata, 5)]
    layouts.write_tracings(tmp_path / "raw/data/ecg_tracings.hdf5", signals, leads=("I", "II", "III", *leads, *LEADS[6:]))
    for name in ("annotations/gold_standard.csv", "attributes.csv"):
        (tmp_path / "raw/data" / name).parent.mkdir(exist_ok=True)
        lines = (realdata / "code_test" / name).read_text().splitlines()[:7]
        (tmp_path / "raw/data" / name).write_text("\n".join(lines) + "\n")
    summary, folder, rows = shards("code-test", tmp_path / "raw", tmp_path / "out", "signal.fs_hz=400")
    assert (summary.kept, summary.refused) == (5, {"missing_file": 1})
    assert {row["split"] for row in rows.values()} == {"test"}
    assert (rows["ecg_tracings_0001"]["age"], rows["ecg_tracings_0001"]["sex"]) == (70, "female")
    for row, key in enumerate(folder.column("key")):
        np.testing.assert_allclose(folder.ecg_mv([row])[0], signals[int(key[-4:])], atol=0.51e-3)


def test_wfdb_with_a_table(realdata: Path, tmp_path: Path) -> None:
    for number, signal in enumerate(layouts.real_mv(realdata, 4)):
        layouts.write_wfdb(tmp_path / f"raw/p{number // 2}/r{number % 3}", signal, 500)
    columns = ["key", "report", "labels", "patient", "fold", "age", "sex"]
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        rows = [["p0/r0", "sinus, rhythm", "NORM;SR", "7", "9", "44", "F"], ["r1", "", "", "7", "", "", ""]]
        csv.writer(file).writerows([columns, *rows, ["gone", "", "", "", "", "", ""], ["r2", "", "", "", "77", "", ""]])
    summary, _, rows = shards("wfdb", tmp_path / "raw", tmp_path / "out", table=table)
    assert (summary.kept, summary.refused) == (3, {"bad_row": 1, "missing_file": 1})
    assert sorted(rows) == ["p0_r0", "p1_r0", "r1"]
    first = rows["p0_r0"]
    assert (first["report"], first["codes"], first["patient_id"], first["split"]) == ("sinus, rhythm.", ["NORM", "SR"], "7", "val")
    assert (first["age"], first["sex"]) == (44, "female")
    parquet = tmp_path / "table.parquet"
    pq.write_table(pa.table({"key": ["r1"], "labels": [["a", "b"]], "split": ["test"]}), parquet)
    _, _, rows = shards("wfdb", tmp_path / "raw", tmp_path / "out2", table=parquet)
    assert (rows["r1"]["codes"], rows["r1"]["split"]) == (["a", "b"], "test")
    assert str(tmp_path) not in (tmp_path / "out2/manifest.json").read_text()


def test_ptb_with_its_fifteen_leads(realdata: Path, tmp_path: Path) -> None:
    _, _, rows = shards("wfdb", realdata / "ptbdb", tmp_path / "out")
    assert (rows["s0010_re"]["age"], rows["s0010_re"]["sex"], rows["s0010_re"]["fs_raw_hz"]) == (81, "female", 1000)


LAYOUTS: dict[str, Callable[[Path, Path], object]] = {
    "csn": layouts.csn,
    "mimic-iv-ecg": layouts.mimic,
    "ptbxl": lambda _, raw: raw.mkdir() or write_raw(raw, 6, rates=(500,)),
    "cinc2021": lambda realdata, raw: shutil.copytree(realdata / "cinc2021/training/georgia", raw / "training/georgia/g1"),
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_zip_as_downloaded_gives_the_same_shards(realdata: Path, tmp_path: Path, dataset: str) -> None:
    LAYOUTS[dataset](realdata, tmp_path / "raw")
    with zipfile.ZipFile(tmp_path / "download.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "raw").rglob("*")):
            archive.write(file, f"the-data-set-1.0.3/{file.relative_to(tmp_path / 'raw')}")
    for raw in ("raw", "download.zip"):
        assert shards(dataset, tmp_path / raw, tmp_path / f"of-{raw}")[0].kept >= 4
    assert (tmp_path / "of-raw/manifest.json").read_bytes() == (tmp_path / "of-download.zip/manifest.json").read_bytes()


@pytest.mark.parametrize("how", ["stored", "deflated", "unpacked"])
def test_hdf5_in_a_zip_is_read_in_place(realdata: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "unpacked":
        monkeypatch.setattr("cmelt.archive.IN_MEMORY", 1000)
    layouts.code15(realdata, tmp_path / "raw")
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_STORED if how == "stored" else zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "raw").iterdir()):
            archive.write(file, f"code-15/{file.name}")
    for raw in ("raw", "raw.zip"):
        shards("code15", tmp_path / raw, tmp_path / f"of-{raw}")
    assert (tmp_path / "of-raw/manifest.json").read_bytes() == (tmp_path / "of-raw.zip/manifest.json").read_bytes()


def test_missing_leads_by_recipe(tmp_path: Path) -> None:
    mv = layouts.incart(tmp_path / "x", 0.2)
    shutil.rmtree(tmp_path / "x")
    layouts.write_wfdb(tmp_path / "raw/r1", mv[[0, 1, 6]], 257, ("I", "II", "V1"))
    layouts.write_wfdb(tmp_path / "raw/r2", mv[[0]], 257, ("MLII",))
    summary, _, _ = shards("wfdb", tmp_path / "raw", tmp_path / "refused")
    assert summary.refused == {"missing_leads": 2}
    summary, folder, rows = shards("wfdb", tmp_path / "raw", tmp_path / "zeroed", "signal.missing_leads=zero")
    assert summary.refused == {"missing_leads": 1}
    assert {"leads_derived", "leads_zeroed"} <= set(rows["r1"]["flags"])
    assert "flat_lead" not in rows["r1"]["flags"]
    assert [bool(lead.any()) for lead in folder.ecg([0])[0]] == [True] * 7 + [False] * 5


def test_every_family_says_what_it_is() -> None:
    listed = list_datasets()
    assert [row["name"] for row in listed] == list(DATASETS)
    assert all(all(row.values()) for row in listed)


def test_counts_are_held_against_the_published_ones() -> None:
    whole = {"superclass": 21_430, "subclass": 21_430, "form": 8_988, "rhythm": 21_066, "diagnostic": 21_430, "all": 21_837}
    assert differences("ptbxl", "1.0.1", 21_837, 21_837, whole) == []
    assert "form" in differences("ptbxl", "1.0.1", 21_837, 21_837, whole | {"form": 8_987})[0]
    assert "21,836 recordings were found" in differences("ptbxl", "1.0.1", 21_836, 21_836, whole)[0]
    assert differences("cinc2021", "unknown", 10_344, 10_344, {}, ("georgia",)) == []
    assert differences("wfdb", "unknown", 3, 3, {}) == []


def test_a_whole_data_set_with_other_labels_than_published_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmelt.datasets.ptbxl.VERSIONS", {6: "1.0.1"})
    monkeypatch.setitem(cmelt.datasets.published.RECORDINGS, ("ptbxl", "1.0.1"), 6)
    monkeypatch.setitem(cmelt.datasets.published.LABELLED, ("ptbxl", "1.0.1"), {"superclass": 6, "rhythm": 6, "form": 1})
    summary, _, _ = shards("ptbxl", write_raw(tmp_path, 6, rates=(500,)), tmp_path / "out")
    assert summary.differences == ["0 recordings have a label of form, 1 are published"]
