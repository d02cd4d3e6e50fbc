"""ECGs as users have them, made into what the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmelt.config import SignalSettings
from cmelt.errors import InputError, RecordError
from cmelt.record import LEADS
from cmelt.signal.condition import windows
from cmelt.signal.decode import Decoded
from cmelt.signal.leads import derive_leads, map_leads


def as_ecg(
    ecg: NDArray[np.floating] | Tensor, settings: SignalSettings, fs_hz: float | None, leads: Sequence[str] | None, mains_hz: float
) -> Tensor:
    """Return `ecg` (12, S) or (B, 12, S) in mV as float32 (B, 12, S'), leads in the order of LEADS.

    With `fs_hz` it is raw: filtered, resampled and cut or padded as `settings` say (`mains_hz` is the mains frequency where it
    was recorded). With `leads` its channels are put in order by name, and absent limb leads derived. Raises InputError.
    """
    values = torch.as_tensor(ecg).detach().cpu()
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or not values.is_floating_point():
        raise InputError(f"an ECG is (12, samples) or (B, 12, samples) of floating-point mV, not {tuple(values.shape)} {values.dtype}")
    values = values.float() if leads is None else by_name(values.float(), leads)
    if values.shape[1] != len(LEADS):
        raise InputError(f"an ECG has {len(LEADS)} leads, {', '.join(LEADS)}; this one has {values.shape[1]}: give their names with leads=")
    bad = (~torch.isfinite(values)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise InputError(f"ECG {bad[0]} holds NaN or infinite samples ({len(bad)} of {len(values)} do); repair or leave them out")
    if fs_hz is None:
        return values
    every = set(range(len(LEADS)))
    raw = (Decoded(row, every, float(fs_hz), "") for row in values.numpy())
    try:
        return torch.from_numpy(np.stack([windows(row, settings, mains_hz)[0].signal for row in raw]))
    except RecordError as error:
        raise InputError(f"an ECG of {values.shape[2]} samples at {fs_hz:g} Hz cannot be conditioned: {error.detail}") from None


def by_name(values: Tensor, leads: Sequence[str]) -> Tensor:
    """Return channels (B, C, S) called `leads` as (B, 12, S) in the order of LEADS; limb leads that others give are derived."""
    try:
        mapped = map_leads(leads)
    except RecordError as error:
        raise InputError(f"leads: {error.detail}") from None
    if len(leads) != values.shape[1]:
        raise InputError(f"leads: {len(leads)} names for {values.shape[1]} channels")
    ordered = values.new_zeros(len(values), len(LEADS), values.shape[2])
    for row, (channel, sign) in mapped.items():
        ordered[:, row] = sign * values[:, channel]
    missing = derive_leads(ordered.transpose(0, 1).numpy(), set(mapped))  # it fills the rows in place: they share the memory
    if missing:
        raise InputError(f"leads: missing {', '.join(missing)}, which the others do not give")
    return ordered
