"""Pictures: true to scale, the same bytes twice, safe in a page."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmelt import plots
from cmelt.errors import InputError, OutputError
from cmelt.record import LEADS


def beats(seconds: float = 10.0, fs_hz: float = 500.0, height_mv: float = 1.0) -> np.ndarray:
    """Return (12, samples) mV: a square pulse of 0.1 s every second from 0.5 s on, in every lead."""
    time = np.arange(round(seconds * fs_hz)) / fs_hz
    return np.tile(height_mv * ((time % 1 >= 0.5) & (time % 1 < 0.6)), (12, 1))


def traces(figure: plots.Figure) -> list[np.ndarray]:
    """Return the pixel coordinates (points, 2) of every line of samples in an ECG figure."""
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 100 and line.get_zorder() > 0]
    return [line.get_transform().transform(line.get_xydata()) for line in lines]


def test_paper_is_true_to_scale() -> None:
    figure = plots.plot_ecg(beats(), 500)
    pixels_per_mm = figure.dpi / 25.4
    assert pixels_per_mm == pytest.approx(8)
    drawn = traces(figure)
    assert len(drawn) == 13  # 3 × 4 and the rhythm strip
    for line in drawn:
        assert np.ptp(line[:, 1]) == pytest.approx(10 * pixels_per_mm)  # 1 mV
        rises = line[1:, 0][np.diff(line[:, 1]) > 1]
        assert np.diff(rises) == pytest.approx(25 * pixels_per_mm)  # 1 s
    widths = sorted(np.ptp(line[:, 0]) / pixels_per_mm for line in drawn)
    assert widths[:12] == pytest.approx([62.5] * 12, abs=0.1)
    assert widths[12] == pytest.approx(250, abs=0.1)


def test_grid_lines_fall_on_whole_pixels(tmp_path: Path) -> None:
    plots.plot_ecg(np.zeros((12, 5000)), 500, tmp_path / "flat.png")
    row = np.asarray(Image.open(tmp_path / "flat.png").convert("L"), int)[9 * 8 + 4]  # half a millimetre below the paper's edge
    assert len(row) == 270 * 8
    between = row.reshape(-1, 40)[1:-1, 4:36]  # between two bold lines
    assert ((between < row.max()).sum(axis=1) == 4).all(), "four fine lines, one pixel each"


def test_every_lead_has_its_name_and_place() -> None:
    names = [text.get_text() for text in plots.plot_ecg(beats(), 500).axes[0].texts]
    assert names == [*(LEADS[column * 3 + row] for row in range(3) for column in range(4)), "II"]


@pytest.mark.parametrize(("seconds", "strips"), [(2.0, 12), (7.0, 12), (10.0, 13), (30.0, 13)])
def test_other_lengths(seconds: float, strips: int) -> None:
    figure = plots.plot_ecg(beats(seconds, 100), 100)
    assert len(traces(figure)) == strips
    assert figure.get_figwidth() * 25.4 == pytest.approx(20 + 25 * min(seconds, 10))


def test_neighbouring_rows_have_room() -> None:
    drawn = traces(plots.plot_ecg(beats(height_mv=3.5), 500))
    first_column = [line for line in drawn if line[0, 0] < 20 * 8 and len(line) < 2000]
    floors = [line[:, 1].min() for line in first_column]
    assert all(above > below + 35 * 8 for above, below in pairwise(floors))


def test_gaps_and_offsets_are_drawn_as_such() -> None:
    signal = beats() + 7.0
    signal[0, 100:200] = np.nan
    signal[11] = np.nan
    whole, holed = traces(plots.plot_ecg(beats(), 500)), traces(plots.plot_ecg(signal, 500))
    assert np.isnan(holed[0][100:200]).all()
    seen = ~np.isnan(holed[0])
    assert np.allclose(holed[0][seen], whole[0][seen])
    assert np.allclose(holed[1], whole[1]), "an offset of the electrode moves nothing"


def test_wrong_shapes_are_said() -> None:
    with pytest.raises(InputError, match="leads first"):
        plots.plot_ecg(np.zeros((5000, 12)), 500)
    with pytest.raises(InputError, match="leads first"):
        plots.plot_ecg(np.zeros((12, 0)), 500)


def test_files_are_whole_and_the_same_twice(tmp_path: Path) -> None:
    for kind in ("png", "svg", "pdf"):
        for name in ("a", "b"):
            plots.plot_ecg(beats(), 500, tmp_path / f"{name}.{kind}", title="00001_hr")
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(OutputError, match=r"\.png"):
        plots.plot_ecg(beats(), 500, tmp_path / "a.docx")
    with pytest.raises(OutputError, match="cannot write"):
        plots.plot_ecg(beats(), 500, tmp_path / "a.png" / "b.png")


def test_svg_leaves_what_is_shown_as_it_is() -> None:
    text = plots.svg(plots.plot_curves({"a": ([0, 1], [1, 2])}, title="NORM 0.923 L Q"), label="curves")
    assert ">NORM 0.923 L Q<" in text


def test_svg_is_safe_and_follows_the_page() -> None:
    title = "</text><script>alert(1)</script> $x_1$ & _"
    text = plots.svg(plots.plot_ecg(beats(), 500, title=title), label='a "<b>" & c')
    root = ET.fromstring(text)
    assert root.get("aria-label") == 'a "<b>" & c'
    assert title in [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert not {node.tag.split("}")[1] for node in root.iter()} & {"script", "style", "image", "metadata"}
    assert not re.search(r"#[0-9a-f]{6}", text), "a colour is not a variable of the page"
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert len(text) < 200_000


def test_panels_say_what_they_are_given() -> None:
    curves = plots.plot_curves({"training": ([1, 2, 3], [3, 2, 1]), "validation": ([3], [1.5])}, title="loss", level=0.69)
    assert [line.get_label() for line in curves.axes[0].lines[:2]] == ["training", "validation"]
    assert curves.axes[0].lines[0].get_ydata() == pytest.approx([3, 2, 1])
    steps = plots.plot_steps({"a": [0.8, 0.7], "b": [0.6, 0.65]}, ["12", "1"], [[0.7, 0.9], [0.6, 0.8]]).axes[0]
    assert [label.get_text() for label in steps.get_xticklabels()] == ["12", "1"]
    assert steps.collections[0].get_paths()[0].get_extents().intervaly == pytest.approx([0.6, 0.9])
    bars = plots.plot_histogram([1, 2, 2, np.nan, 3, 1e9], x_label="bpm").axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 5
    assert not plots.plot_histogram([]).axes[0].patches
    assert len(plots.plot_histogram([4, 4, 4]).axes[0].patches) == 1


def test_reconstruction_shows_the_model_only_where_it_was_blind() -> None:
    truth, guess = np.zeros((12, 160)), np.ones((12, 160))
    removed = np.arange(12 * 10).reshape(12, 10).repeat(16, 1) % 7 < 3  # another stretch in each lead
    panel = plots.plot_reconstruction(truth, guess, removed, fs_hz=100, leads=["V1"], duration_s=1.6).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in panel.lines}
    gone = removed[LEADS.index("V1")]
    assert (np.isnan(lines["rebuilt by the model"]) == ~gone).all()
    assert (np.isnan(lines["seen by the model"]) == gone).all()
    assert set(lines["rebuilt by the model"][gone]) == {1.0}


def test_pictures_can_be_drawn_in_threads() -> None:
    def draw(height: int) -> str:
        return plots.svg(plots.plot_ecg(beats(height_mv=height), 500), "ecg")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, [1, 2, 3, 4])) == [draw(height) for height in [1, 2, 3, 4]]


def test_pyplot_is_never_loaded() -> None:
    code = "import sys, cmelt.plots, cmelt.page; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_real_records(realdata: Path, tmp_path: Path) -> None:
    for name in ("00000/00001", "00000/00349", "01000/01158"):  # quiet, tall with ectopic beats, with steps of the base line
        signal_mv = np.fromfile(realdata / f"ptbxl/records500/{name}_hr.dat", "<i2").reshape(-1, 12).T / 1000
        figure = plots.plot_ecg(signal_mv, 500, tmp_path / "real.png", title=name)
        drawn, height = traces(figure), figure.get_figheight() * figure.dpi
        inside = np.concatenate([(line[:, 1] > 0) & (line[:, 1] < height) for line in drawn])
        assert inside.mean() > 0.999
        assert (tmp_path / "real.png").stat().st_size > 50_000
