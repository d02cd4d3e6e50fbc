"""Batches as a pure function of the step: rows by computed order, wrong reports dealt, then masks drawn.

Batch `step` of a run depends on (recipe, shards, seed, step) and nothing else, so a run resumes at any step, on any number of
ranks and threads. B rows of the global batch, b of this rank, S samples, L text tokens, T ECG tokens, R distinct reports.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmelt.config import AugmentSettings, PretrainRecipe
from cmelt.errors import RecipeError
from cmelt.models.augment import NUMBERS, varied, varies
from cmelt.models.cmelt import CMELT, Batch
from cmelt.models.masking import keep_leads, mask_text
from cmelt.shards.order import noise
from cmelt.text.tokenizer import ReportTokenizer
from cmelt.training.corpus import Corpus
from cmelt.training.findings import FindingTable
from cmelt.training.negatives import Dealer

Ints = NDArray[np.int64]
Plan = tuple[Ints, dict[str, Tensor]]
"""The rows (b,) of a batch, and all its tensors but the ECGs."""
PLANNED_AT_ONCE = 8
"""Batches whose plans are made together."""


@dataclass(slots=True)
class HostBatch:
    """A batch as it waits for the model, which makes a `Batch` of it on its device: late, for a lead-masked copy doubles it."""

    ecg: Tensor
    """(b, 12, S) float32 mV; for a GPU int16 in units of `lsb_mv`, pinned: half the way there."""
    lead_kept: Tensor
    """(b, 12) bool, False = the model does not see this lead."""
    text_ids: Tensor
    text_padding: Tensor
    mlm_labels: Tensor
    mask_noise: Tensor
    is_aligned: Tensor
    report_id: Tensor
    text_report_id: Tensor
    entities: Tensor
    """As in `Batch`."""
    variation: Tensor
    """(b, N) uniform noise of `augment`; N = 0 where nothing is varied."""
    augment: AugmentSettings
    lsb_mv: float = 1.0

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`: int16 as mV, varied, leads masked."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self) if f.name not in ("augment", "lsb_mv")}
        ecg, kept, variation = moved.pop("ecg"), moved.pop("lead_kept"), moved.pop("variation")
        if ecg.dtype == torch.int16:
            ecg = ecg.float().mul_(self.lsb_mv)
        if varies(self.augment):
            ecg = varied(ecg, variation, self.augment)
        return Batch(ecg=ecg if self.lead_kept.all() else ecg * kept[:, :, None], ecg_target=ecg, **moved)

    def __len__(self) -> int:
        """Return b."""
        return len(self.ecg)


class Loader:
    """Makes the batches of a run from a corpus; see `batch` and `batches`."""

    def __init__(
        self, corpus: Corpus, model: CMELT, recipe: PretrainRecipe, dealer: Dealer, augment: bool = True, late: bool = False
    ) -> None:
        """Take what batches are made of.

        ``augment`` False leaves the ECGs alone and mixes nothing (validation); ``late`` leaves the conversion to mV to the device.
        """
        self.corpus, self.recipe, self.dealer = corpus, recipe, dealer
        self.seed = recipe.train.seed
        data = recipe.data if augment else recipe.data.model_copy(update={"weights": {}})
        self.order = corpus.order(self.seed, data)
        self.ecg_tokens = model.ecg_token_count(corpus.samples)
        self.tokens = model.require_tokenizer()
        self.texts = TokenTable(self.tokens, corpus.reports)
        self.findings = FindingTable(model.config.entities if recipe.objectives.entities else (), corpus.reports)
        self.masking = recipe.masking if augment else recipe.masking.model_copy(update={"leads": "each", "lead_prob": 0.0})
        self.augment = recipe.augment if augment else AugmentSettings()
        self.late = late
        self._room = Room()

    def place(self, step: int) -> dict[str, int]:
        """Return where the sequence stands after `step` batches: all there is to a loader's state."""
        sample = step * self.recipe.train.batch
        return {"epoch": sample // len(self.order), "sample": sample}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> HostBatch:
        """Return rank's rows of the batch of 0-based `step`: (b, 12, S) float32 mV, token ids, masks, alignment."""
        return self._made(self._plan(step, 1, rank, world)[0])

    def batches(self, start: int, stop: int, rank: int = 0, world: int = 1) -> Iterator[HostBatch]:
        """Yield rank's rows of the batches of steps start … stop − 1, made ahead by ``data.threads`` threads."""
        count = self.recipe.data.threads
        if not count:
            for step in range(start, stop):
                self._expect(step)
                yield self.batch(step, rank, world)
            return
        with ThreadPoolExecutor(count, "cmelt-batch") as threads:
            coming = self._submitted(threads, start, stop, rank, world)
            waiting: deque[Future[HostBatch]] = deque()
            try:
                for step in range(start, stop):
                    self._expect(step)
                    waiting.extend(itertools.islice(coming, count + 1 - len(waiting)))
                    yield waiting.popleft().result()
            finally:  # the loop may have ended early
                threads.shutdown(wait=False, cancel_futures=True)
                if self.corpus.is_remote:
                    self.corpus.expect(np.empty(0, np.int64))

    def _submitted(self, threads: ThreadPoolExecutor, start: int, stop: int, rank: int, world: int) -> Iterator[Future[HostBatch]]:
        """Have `threads` make batch after batch; a plan is submitted while the batches of the one before are made."""
        first, count = start, 1  # the first batch waits for no other
        plans = after = threads.submit(self._plan, first, count, rank, world)
        while first < stop:
            then, more = first + count, min(PLANNED_AT_ONCE, stop - first - count)
            for at in range(count):
                made = threads.submit(self._awaited, plans, at)
                if not at and more:
                    after = threads.submit(self._plan, then, more, rank, world)
                yield made
            first, count, plans = then, more, after

    def _plan(self, first: int, count: int, rank: int, world: int) -> list[Plan]:
        """Return all but the ECGs of rank's rows of the batches of steps first … first + count − 1.

        Several at once: of a single batch's arrays more time goes into beginning the work than into doing it.
        """
        size = self.recipe.train.batch
        rows, epochs, positions = self.order.samples(first * size, count * size)
        report_id, group = self.corpus.report_id[rows], self.corpus.group[rows]
        # Wrong reports are dealt over the whole batch, alike on every rank; then each makes its own rows.
        whole = [slice(at * size, (at + 1) * size) for at in range(count)]
        deals = [
            self.dealer.deal(report_id[one], group[one], np.random.default_rng((self.seed, 2, first + at))) for at, one in enumerate(whole)
        ]
        here = rank_slice(size, rank, world)
        rows, epochs, positions, report_id = (of.reshape(count, size)[:, here].ravel() for of in (rows, epochs, positions, report_id))
        text_id = np.concatenate([deal.text_id[here] for deal in deals])  # what is read; masks are drawn from it, never from the true one

        ids, lengths = self.texts.padded(text_id)
        length = ids.shape[1]
        padding = np.arange(length) >= lengths[:, None]
        wanted = (12, self.ecg_tokens, 3 * length, 1, NUMBERS if varies(self.augment) else 0)
        lead_noise, mask_noise, text_noise, share, variation = noise(self.seed, epochs, positions, wanted)
        # Three numbers a token, one token after the other: they do not depend on the longest text of the batch.
        by_token = text_noise.reshape(-1, length, 3).transpose(0, 2, 1)
        texts = torch.from_numpy(ids), torch.from_numpy(padding), torch.from_numpy(by_token)
        masked_ids, labels = mask_text(*texts, self.recipe.masking.text_prob, self.tokens)
        fields = {
            "lead_kept": torch.from_numpy(keep_leads(lead_noise, share, self.masking)),
            "text_ids": masked_ids,
            "text_padding": texts[1],
            "mlm_labels": labels,
            "mask_noise": torch.from_numpy(mask_noise),
            "is_aligned": torch.from_numpy(np.concatenate([deal.is_aligned[here] for deal in deals])),
            "report_id": torch.from_numpy(report_id),
            "text_report_id": torch.from_numpy(text_id),
            "entities": self.findings.rows(report_id),
            "variation": torch.from_numpy(variation),
        }
        each = len(rows) // count
        plans = []
        for own in (slice(at * each, (at + 1) * each) for at in range(count)):
            plan = {name: values[own] for name, values in fields.items()}
            longest = int(lengths[own].max())
            plan |= {name: plan[name][:, :longest].contiguous() for name in ("text_ids", "text_padding", "mlm_labels")}
            plans.append((rows[own], plan))
        return plans

    def _awaited(self, plans: Future[list[Plan]], at: int) -> HostBatch:
        """Return the batch of plan `at`."""
        return self._made(plans.result()[at])

    def _made(self, plan: Plan) -> HostBatch:
        """Return the batch of `plan`, ECGs and all."""
        rows, rest = plan
        return HostBatch(ecg=self._ecg(rows), augment=self.augment, lsb_mv=self.corpus.lsb_mv, **rest)

    def _expect(self, step: int) -> None:
        """Have the shards of the window in which batch `step` begins, and of the next, fetched and kept where they lie at a URL."""
        if self.corpus.is_remote:
            self.corpus.expect(self.order.upcoming(step * self.recipe.train.batch))

    def _ecg(self, rows: Ints) -> Tensor:
        """Return the ECGs of `rows` (b,): (b, 12, S) float32 mV, or int16 where the conversion is left to the device."""
        shape = (len(rows), 12, self.corpus.samples)
        if self.late:
            units = torch.empty(shape, dtype=torch.int16, pin_memory=torch.cuda.is_available())
            self.corpus.read(rows, units.numpy())
            return units
        ecg, out = self._room.take(shape)
        self.corpus.ecg_mv(rows, out)
        return ecg


class Room:
    """Big arrays that are used again when the tensors made of them are gone: fresh pages cost as much as filling them."""

    def __init__(self) -> None:
        self._free: defaultdict[tuple[int, ...], deque[NDArray[np.float32]]] = defaultdict(deque)

    def take(self, shape: tuple[int, ...]) -> tuple[Tensor, NDArray[np.float32]]:
        """Return an uninitialised float32 tensor of `shape`, and the array that shares its memory, to be filled and forgotten."""
        free = self._free[shape]
        try:
            whole = free.pop()
        except IndexError:
            whole = np.empty(shape, np.float32)
        lent = whole[:]  # lives as long as the tensor's memory, whoever holds that
        weakref.finalize(lent, free.append, whole)
        return torch.from_numpy(lent), whole


class TokenTable:
    """The token ids of every report, each made when it is first wanted and kept."""

    def __init__(self, tokenizer: ReportTokenizer, reports: Sequence[str]) -> None:
        self.tokenizer, self.reports = tokenizer, reports
        self.ids = np.zeros((len(reports), tokenizer.max_tokens), np.int32)  # pages are given as they are written
        self.lengths = np.full(len(reports), -1, np.int64)
        self._lock = threading.Lock()

    def padded(self, wanted: Ints) -> tuple[Ints, Ints]:
        """Return token ids (b, L) int64 of the reports `wanted` (b,), padded to the longest, and their lengths (b,)."""
        if (self.lengths[wanted] < 0).any():
            with self._lock:
                absent = np.unique(wanted[self.lengths[wanted] < 0])
                ids, lengths = self.tokenizer.encode_padded([self.reports[report] for report in absent])
                self.ids[absent] = self.tokenizer.pad_id
                self.ids[absent, : ids.shape[1]] = ids
                self.lengths[absent] = lengths  # last: another thread looks here without the lock
        lengths = self.lengths[wanted]
        return self.ids[wanted, : int(lengths.max())].astype(np.int64), lengths


def rank_slice(size: int, rank: int, world: int) -> slice:
    """Return which rows of a global batch of `size` are rank's: contiguous, the first `size % world` ranks have one more."""
    if size < world:
        raise RecipeError(f"train.batch = {size} has no row for each of {world} ranks; raise it, or take fewer")
    each, more = divmod(size, world)
    return slice(rank * each + min(rank, more), (rank + 1) * each + min(rank + 1, more))
