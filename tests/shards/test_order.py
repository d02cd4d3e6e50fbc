"""Sample order: every row once an epoch, the same whatever the slices, resumable anywhere."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cmelt.shards.order import Order, noise


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 300), shards=st.integers(1, 40), seed=st.integers(0, 2**31), window=st.integers(1, 20))
def test_every_row_exactly_once_an_epoch(rows: int, shards: int, seed: int, window: int) -> None:
    numbers = np.random.default_rng(seed).permutation(rows * 3)[:rows]
    order = Order(numbers, np.random.default_rng(seed + 1).integers(0, shards, rows), seed, window)
    for epoch in (0, 1, 5):
        assert sorted(order.epoch(epoch).rows) == sorted(numbers)


def test_batches_run_across_the_epoch_boundary_and_slices_agree() -> None:
    make = lambda: Order(np.arange(103), np.arange(103) // 10, 7, window=3)  # noqa: E731
    whole, epochs, positions = make().samples(0, 400)
    assert epochs.tolist() == [g // 103 for g in range(400)]
    assert positions.tolist() == [g % 103 for g in range(400)]
    parts = np.concatenate([make().samples(start, 25)[0] for start in range(0, 400, 25)])
    assert (whole == parts).all()
    assert (whole[:103] != whole[103:206]).any()


def test_reads_stay_within_a_window_of_shards() -> None:
    shards = np.repeat(np.arange(100), 10)
    order = Order(np.arange(1000), shards, 0, window=4).epoch(0).rows
    for start in range(0, 1000, 40):
        assert len(set(shards[order[start : start + 40]])) == 4


def test_noise_is_uniform_and_depends_on_its_place_alone() -> None:
    epochs, positions = np.zeros(500, np.int64), np.arange(500)
    one, whole = noise(3, epochs, positions, (7, 64))
    assert [part.shape for part in (one, whole)] == [(500, 7), (500, 64)]
    narrow = noise(3, epochs[100:200], positions[100:200], (12, 31))[1]  # a slice of the batch, and of other widths
    assert (narrow == whole[100:200, :31]).all()
    assert abs(whole.mean() - 0.5) < 0.01
    assert abs(whole.std() - 12**-0.5) < 0.01
    assert whole.min() >= 0
    assert whole.max() < 1
    first = noise(3, epochs, positions, (64, 64))[0]
    for other in (noise(4, epochs, positions, (1, 64))[1], first, noise(3, epochs + 1, positions, (1, 64))[1]):
        assert abs(np.corrcoef(whole.ravel(), other.ravel())[0, 1]) < 0.02
    assert noise(3, np.array([2]), np.array([10**6]), (2,))[0].tolist() == [
        [0.22097861766815186, 0.4022035598754883]
    ]  # for good: a run resumed in a later version
