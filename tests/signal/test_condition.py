"""From a decoded record to its window: what is skipped, mended, derived, cropped, padded, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from cmelt.config import SignalSettings
from cmelt.errors import RecordError
from cmelt.record import FLAGS, LEADS
from cmelt.signal.condition import condition
from cmelt.signal.decode import Decoded

OFF = {"highpass_hz": 0, "lowpass_hz": 0, "notch_hz": 0}


def decoded(seconds: float = 10, fs_hz: float = 500, seed: int = 0) -> Decoded:
    signal = np.random.default_rng(seed).normal(0, 0.3, (12, round(seconds * fs_hz))).astype(np.float32)
    return Decoded(signal, set(range(12)), fs_hz, "")


def test_filters_that_the_rate_cannot_hold_are_skipped_and_flagged() -> None:
    for fs_hz, expected in ((100, ["lowpass_skipped", "notch_skipped"]), (200, ["lowpass_skipped"]), (250, [])):
        assert condition(decoded(fs_hz=fs_hz), SignalSettings(fs_hz=fs_hz), 50)[2] == expected
    at_the_edge = SignalSettings(fs_hz=200, lowpass_hz=90, notch_hz=89.9)  # 0.45 of 200 Hz
    assert condition(decoded(fs_hz=200), at_the_edge, 50)[2] == ["lowpass_skipped"]


def test_a_high_pass_that_the_rate_cannot_hold_is_skipped() -> None:
    assert "highpass_skipped" in condition(decoded(fs_hz=100), SignalSettings(highpass_hz=45, lowpass_hz=0), 50)[2]


def test_the_mains_are_the_data_sets() -> None:
    time = np.arange(5000) / 500
    tone = Decoded(np.tile(np.sin(2 * np.pi * 60 * time), (12, 1)).astype(np.float32), set(range(12)), 500, "")
    loud = {mains: float(np.abs(condition(tone, SignalSettings(), mains)[0][:, 1000:4000]).max()) for mains in (50, 60)}
    assert loud[60] < 0.05 < 0.5 < loud[50]


def test_a_long_record_is_filtered_whole_and_its_middle_kept() -> None:
    settings = SignalSettings()
    long = decoded(14)
    window, start_s, flags = condition(decoded(14), settings, 50)
    whole, _, _ = condition(decoded(14), SignalSettings(duration_s=14), 50)
    assert (window.shape, start_s, flags) == ((12, 5000), 2.0, ["cropped"])
    np.testing.assert_array_equal(window, whole[:, 1000:6000])
    plain, start_s, _ = condition(long, SignalSettings(**OFF), 50)
    np.testing.assert_array_equal(plain, decoded(14).signal[:, 1000:6000])


def test_a_short_record_is_followed_by_zeros() -> None:
    window, start_s, flags = condition(decoded(7), SignalSettings(**OFF), 50)
    assert (window.shape, start_s, flags) == ((12, 5000), 0.0, ["padded"])
    np.testing.assert_array_equal(window[:, :3500], decoded(7).signal)
    assert not window[:, 3500:].any()


def test_absent_limb_leads_follow_from_two_others() -> None:
    truth = decoded().signal
    truth[2] = truth[1] - truth[0]
    truth[3], truth[4], truth[5] = -(truth[0] + truth[1]) / 2, truth[0] - truth[1] / 2, truth[1] - truth[0] / 2
    for kept in ((0, 1), (0, 2), (1, 2)):
        holes = truth.copy()
        absent = [row for row in range(6) if row not in kept]
        holes[absent] = np.nan
        window, _, flags = condition(Decoded(holes, {*kept, *range(6, 12)}, 500, ""), SignalSettings(**OFF), 50)
        np.testing.assert_allclose(window, truth, atol=1e-5)
        assert flags == ["leads_derived"]


def test_short_gaps_are_bridged_and_long_ones_refused() -> None:
    record = decoded()
    record.signal[3, 1000:1100] = np.nan
    record.signal[0, :3] = np.inf
    window, _, flags = condition(record, SignalSettings(**OFF), 50)
    assert flags == ["nan_filled"]
    assert np.isfinite(window).all()
    np.testing.assert_allclose(np.diff(window[3, 999:1101], 2), 0, atol=1e-6)
    record.signal[7, 2000:2101] = np.nan
    with pytest.raises(RecordError, match=r"nan: 0\.20 s of lead V2"):
        condition(record, SignalSettings(), 50)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: setattr(r, "signal", r.signal[:, :499]), "too_short"),
        (lambda r: r.signal.fill(0.2), "no_signal"),
        (lambda r: setattr(r, "present", set(range(11))), "missing_leads"),
        (lambda r: setattr(r, "present", {0, *range(6, 12)}), "missing_leads"),
        (lambda r: r.signal[5].fill(np.nan), "nan"),
    ],
)
def test_what_is_no_ecg_is_refused(change: object, reason: str) -> None:
    record = decoded()
    change(record)  # type: ignore[operator]
    with pytest.raises(RecordError) as error:
        condition(record, SignalSettings(), 50)
    assert error.value.reason == reason


def test_a_flat_lead_is_flagged_and_every_flag_is_explained() -> None:
    record = decoded()
    record.signal[LEADS.index("V4")] = 0
    assert condition(record, SignalSettings(), 50)[2] == ["flat_lead"]
    assert {"padded", "cropped", "clipped", "lowpass_skipped", "notch_skipped", "leads_derived", "nan_filled", "flat_lead"} <= FLAGS.keys()
