"""Written reports beside true ones: findings, baselines, intervals by patient, all from counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmelt.files import write_json
from cmelt.sections import read_results
from cmelt.tasks.writing import MEASURES, Compared, compare_all, findings

TRUE = ["sinus rhythm. left bundle branch block.", "atrial fibrillation.", "sinus rhythm. normal ecg.", "sinus rhythm. no infarction."]
WRITTEN = ["sinus rhythm. left axis deviation.", "atrial fibrillation.", "sinus rhythm. normal ecg.", "sinus rhythm."]
PATIENTS = ["a", "a", "b", "c"]


def test_findings_are_counted_by_hand() -> None:
    found = compare_all(WRITTEN, TRUE, {"other": TRUE}, PATIENTS)
    told = {name: one["value"] for name, one in found["measures"].items()}
    # True: SR CLBBB | AFIB | SR NORM | SR. Written: SR LAX | AFIB | SR NORM | SR. Hits 5 of 6 written and of 6 true.
    assert told["entity_micro_precision"] == pytest.approx(5 / 6, abs=1e-6)
    assert told["entity_micro_recall"] == pytest.approx(5 / 6, abs=1e-6)
    assert told["entity_micro_f1"] == pytest.approx(5 / 6, abs=1e-6)
    assert told["entity_macro_f1"] == pytest.approx((1 + 0 + 1 + 1) / 4, abs=1e-6), "of SR, CLBBB, AFIB, NORM; nobody has LAX"
    assert found["per_finding"]["LAX"] == {"finding": "leftward axis", "true": 0, "written": 1, "f1": 0.0, "other": 0.0}
    assert all(one["value"] == 1 for one in found["baselines"]["other"].values())
    gap = found["baselines"]["other"]["entity_micro_f1"]
    assert gap["difference"] == pytest.approx(5 / 6 - 1, abs=1e-6)
    assert gap["difference_ci95"][1] == 0


def test_a_resample_is_what_its_recordings_give() -> None:
    compared = Compared.of(WRITTEN, TRUE)
    drawn = [0, 1, 0, 1, 3]  # patient a twice, c once
    weights = np.array([[2], [2], [0], [1]], np.float32)
    again = Compared.of([WRITTEN[n] for n in drawn], [TRUE[n] for n in drawn]).measures(np.ones((5, 1), np.float32))
    by_weight = compared.measures(weights)
    for name in MEASURES:
        if name != "entity_macro_f1":  # whose findings are those of the whole fold
            assert by_weight[name] == pytest.approx(again[name]), name


def test_the_report_page_says_where_written_reports_are_told_of(tmp_path: Path) -> None:
    write_json(tmp_path / "generate.json", {"task": "generate"} | compare_all(WRITTEN, TRUE, {}, PATIENTS))
    found = read_results(tmp_path)
    assert found.results == []
    assert found.unread == ["generate.json is not shown here: reports that a model wrote; cmelt generate score tells of them"]


def test_a_denied_finding_is_none() -> None:
    assert findings("sinus rhythm. no left bundle branch block. possible inferior infarct.") == {"SR": "sinus rhythm"}
