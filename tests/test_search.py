"""Words find ECGs; patients stay unknown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cmelt.errors import InputError, ShardError
from cmelt.models.cmelt import CMELT
from cmelt.search import excerpt, nearest, search, table
from cmelt.shards.read import ShardFolder
from tests.made import MakeShards


@pytest.mark.parametrize("cosine", [True, False])
def test_the_nearest_are_the_nearest(cosine: bool) -> None:
    rng = np.random.default_rng(0)
    candidates, queries = rng.normal(size=(50, 8)), rng.normal(size=(3, 8))
    score = queries @ candidates.T
    if cosine:
        score /= np.linalg.norm(candidates, axis=1) * np.linalg.norm(queries, axis=1)[:, None]
    scores, places = nearest(candidates.astype(np.float32), queries.astype(np.float32), 5, cosine)
    assert np.array_equal(places, np.argsort(-score, axis=1)[:, :5])
    np.testing.assert_allclose(scores, -np.sort(-score, axis=1)[:, :5], atol=1e-5)
    assert nearest(np.eye(3, dtype=np.float32), np.ones((1, 3), np.float32), 10)[0].shape == (1, 3), "fewer than asked for"


def test_words_find_their_ecgs(run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in text encoder gives the direction of one recording, so that one is found first."""
    folder, row = ShardFolder(shards), 133
    target = CMELT.from_pretrained(run).encode_ecg(folder.ecg_mv([row]))
    monkeypatch.setattr(CMELT, "encode_text", lambda model, texts, batch=256: 7 * target)
    result = search("the one of row 133", None, run, top=3, plot=tmp_path / "pictures", quiet=True)
    first, second, _ = result["found"]
    assert (first["rank"], first["key"], first["report"]) == (1, "00133", folder.column("report")[row])
    assert first["score"] == pytest.approx(1, abs=1e-4)
    assert first["score"] > second["score"]
    assert [Path(hit["picture"]).name[:3] for hit in result["found"]] == ["01-", "02-", "03-"]
    assert all(Path(hit["picture"]).read_bytes()[:4] == b"\x89PNG" for hit in result["found"])
    json.dumps(result)
    only = search("again", [shards], run, top=99, split="test", quiet=True)
    assert len(only["found"]) == only["searched"] == 24
    assert {hit["split"] for hit in only["found"]} == {"test"}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(result))
    assert "00133" in console.export_text()


def test_patients_are_not_named(run: Path, tmp_path: Path, make_shards: MakeShards) -> None:
    own = make_shards(tmp_path / "own", n=20, dataset="files")
    result = search("normal ecg", [own], run, quiet=True)
    assert len(result["found"]) == 10
    assert all(hit["key"].startswith("recording ") and "patient_id" not in hit for hit in result["found"])


def test_searches_that_cannot_be(run: Path, tmp_path: Path, make_shards: MakeShards) -> None:
    with pytest.raises(InputError, match="nothing to search for"):
        search("  ", None, run)
    with pytest.raises(InputError, match="--similarity 'cos'; did you mean 'cosine'"):
        search("x", None, run, similarity="cos")
    few = make_shards(tmp_path / "few", n=8)
    with pytest.raises(ShardError, match="no recording in split test"):
        search("x", [few], run, split="test")
    with pytest.raises(ShardError, match="no recording where fold > 10"):
        search("x", [few], run, where="fold > 10")
    with pytest.raises(InputError, match="flod"):
        search("x", [few], run, where="flod = 3")
    with pytest.raises(ShardError, match="is not a folder"):
        search("x", [tmp_path / "nowhere"], run)


def test_excerpts_end_between_words() -> None:
    assert excerpt("sinus rhythm") == "sinus rhythm"
    assert excerpt("sinus rhythm normal", 15) == "sinus rhythm …"
