"""Two processes with a part of the batch each give the loss and the gradients of one process with the whole."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.two_ranks import FORMS, ROWS, loss_and_gradients, whole_batch, work


def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    batch = whole_batch()
    counts = [(batch.mlm_labels[rows] >= 0).sum() for rows in ROWS]
    assert counts[0] != counts[1]  # else a mean of means would do
    for number, settings in enumerate(FORMS):
        loss, gradients = loss_and_gradients(batch, settings, None)
        joined = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert float(joined.pop("loss")) == pytest.approx(float(loss), rel=1e-5)
        assert joined.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(joined[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
