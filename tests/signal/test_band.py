"""Filters in closed form: scipy's designs are the referee."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import sos2zpk, sosfreqz

from cmelt.signal.band import Band, power, sections, slowest


@pytest.mark.parametrize("fs_hz", [257, 500, 1000])
@pytest.mark.parametrize(
    "band",
    [
        Band(0.5, 100, 3, 50, 30),
        Band(0.05, 0, 1, 0, 30),
        Band(0, 40, 4, 0, 30),
        Band(0, 0, 3, 60, 5),
        Band(1, 30, 8, 50, 300),
        Band(0, 110, 2, 3, 0.5),
    ],
)
def test_power_and_ringing_are_those_of_the_sections(band: Band, fs_hz: float) -> None:
    sos, hz = sections(band, fs_hz), np.linspace(0, fs_hz / 2, 4001)
    np.testing.assert_allclose(power(band, fs_hz, hz), np.abs(sosfreqz(sos, worN=hz, fs=fs_hz)[1]) ** 2, atol=1e-9)
    assert slowest(band, fs_hz) == pytest.approx(np.abs(sos2zpk(sos)[1]).max(), abs=1e-7)


def test_no_filter_lets_everything_through_and_does_not_ring() -> None:
    assert slowest(Band(0, 0, 3, 0, 30), 500) == 0
    assert (power(Band(0, 0, 3, 0, 30), 500, np.arange(250.0)) == 1).all()
