"""Batches as a pure function of the step: rows by computed order, wrong reports dealt, then masks drawn.

Batch `step` of a run depends on (recipe, shards, seed, step) and nothing else, so a run resumes at any step, and a background
thread may prepare the next batches while the model works.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from cmelt.config import PretrainRecipe
from cmelt.models.cmelt import CMELT, Batch
from cmelt.models.masking import mask_leads, mask_text
from cmelt.shards.order import Order, noise
from cmelt.training.corpus import Corpus
from cmelt.training.negatives import Dealer

LEADS_STREAM, TOKENS_STREAM, TEXT_STREAM = range(3)


class Loader:
    """Makes the batches of a run from a corpus; see `batch` and `batches`."""

    def __init__(self, corpus: Corpus, model: CMELT, recipe: PretrainRecipe, dealer: Dealer, augment: bool = True) -> None:
        """Tokenise every distinct report of `corpus` once. ``augment`` False leaves the leads alone (validation)."""
        self.corpus, self.recipe, self.dealer = corpus, recipe, dealer
        self.seed = recipe.train.seed
        self.order = Order(np.arange(len(corpus)), corpus.shard_of, self.seed)
        self.ecg_tokens = model.ecg_token_count(corpus.samples)
        self.tokens = model.require_tokenizer()
        self.ids, self.lengths = self.tokens.encode_padded(corpus.reports)  # (R, L) int32, (R,)
        self.lead_prob = recipe.masking.lead_prob if augment else 0.0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return rank's rows of the batch of 0-based `step`: (b, 12, S) float32 mV, token ids, masks, alignment."""
        size = self.recipe.train.batch
        rows, epochs, positions = self.order.samples(step * size, size)
        # Wrong reports are dealt over the whole batch, alike on every rank; then each makes its own rows.
        report_id = self.corpus.report_id[rows]
        deal = self.dealer.deal(report_id, self.corpus.group[rows], np.random.default_rng((self.seed, 2, step)))
        here = rank_slice(size, rank, world)
        text_id = deal.text_id[here]  # the report that the model reads; masks are drawn from it, never from the true one
        rows, epochs, positions, report_id = rows[here], epochs[here], positions[here], report_id[here]

        length = int(self.lengths[text_id].max())
        ids = torch.from_numpy(self.ids[text_id, :length].astype(np.int64))
        padding = torch.arange(length)[None, :] >= torch.from_numpy(self.lengths[text_id])[:, None]
        text_noise = torch.from_numpy(noise(self.seed, TEXT_STREAM, epochs, positions, 3 * length))
        text_noise = text_noise.unflatten(1, (length, 3)).transpose(1, 2)  # a token's noise does not depend on the batch's longest text
        masked_ids, labels = mask_text(ids, padding, text_noise, self.recipe.masking.text_prob, self.tokens)

        ecg = torch.from_numpy(self.corpus.ecg(rows)).float().mul_(1e-3)  # µV → mV
        lead_noise = torch.from_numpy(noise(self.seed, LEADS_STREAM, epochs, positions, 12))
        return Batch(
            ecg=mask_leads(ecg, lead_noise, self.lead_prob),
            ecg_target=ecg,
            text_ids=masked_ids,
            text_padding=padding,
            mlm_labels=labels,
            mask_noise=torch.from_numpy(noise(self.seed, TOKENS_STREAM, epochs, positions, self.ecg_tokens)),
            is_aligned=torch.from_numpy(deal.is_aligned[here]),
            report_id=torch.from_numpy(report_id),
            text_report_id=torch.from_numpy(text_id),
        )

    def batches(self, start: int, stop: int, rank: int = 0, world: int = 1, ahead: int = 2) -> Iterator[Batch]:
        """Yield rank's rows of the batches of steps start … stop − 1, prepared `ahead` steps early in one background thread."""
        with ThreadPoolExecutor(1) as thread:
            waiting: list[Future[Batch]] = []
            for step in range(start, stop):
                while len(waiting) < min(ahead, stop - step):
                    waiting.append(thread.submit(self.batch, step + len(waiting), rank, world))
                yield waiting.pop(0).result()


def rank_slice(size: int, rank: int, world: int) -> slice:
    """Return which rows of a global batch of `size` are rank's: contiguous, the first `size % world` ranks have one more."""
    each, more = divmod(size, world)
    return slice(rank * each + min(rank, more), (rank + 1) * each + min(rank + 1, more))
