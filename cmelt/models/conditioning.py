"""ECGs as users have them, made into what the model was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmelt.config import SignalSettings
from cmelt.errors import InputError, RecordError
from cmelt.record import LEADS
from cmelt.signal.condition import SHORTEST_S, window_samples, windows
from cmelt.signal.decode import Decoded
from cmelt.signal.exports import HIGHEST_FS_HZ
from cmelt.signal.header import LOWEST_FS_HZ
from cmelt.signal.leads import derive_leads, map_leads

MOST_MV = 30.0
"""No electrode gives a signal as high as this from its lowest to its highest, in half of the leads."""


def as_ecg(
    ecg: NDArray[np.floating] | Tensor,
    settings: SignalSettings,
    fs_hz: float | None,
    leads: Sequence[str] | None,
    mains_hz: float,
    any_leads: bool = False,
) -> Tensor:
    """Return `ecg` (12, S) or (B, 12, S) in mV as float32 (B, 12, S'), leads in the order of LEADS.

    With `fs_hz` it is raw: filtered, resampled and cut or padded as `settings` say (`mains_hz` is the mains frequency where it
    was recorded). With `leads` its channels are put in order by name, and absent limb leads derived; with `any_leads` others may be
    absent too, and are zero. Raises InputError.
    """
    given = ecg.detach().cpu() if isinstance(ecg, Tensor) else np.asarray(ecg)
    is_float = given.is_floating_point() if isinstance(given, Tensor) else np.issubdtype(given.dtype, np.floating)
    if given.ndim not in (2, 3) or not is_float:
        raise InputError(f"an ECG is (12, samples) or (B, 12, samples) of floating-point mV, not {tuple(given.shape)} {given.dtype}")
    values = given.float() if isinstance(given, Tensor) else torch.from_numpy(np.array(given, np.float32))
    values = values[None] if values.ndim == 2 else values
    values = values if leads is None else by_name(values, leads.replace(",", " ").split() if isinstance(leads, str) else leads, any_leads)
    if values.shape[1] != len(LEADS):
        turned = values.shape[2] == len(LEADS)
        hint = "leads come first: transpose it" if turned else "give their names with leads="
        raise InputError(f"an ECG has {len(LEADS)} leads, {', '.join(LEADS)}; this one has {values.shape[1]}: {hint}")
    bad = (~torch.isfinite(values)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise InputError(f"ECG {bad[0]} holds NaN or infinite samples ({len(bad)} of {len(values)} do); repair or leave them out")
    if values.numel() and (values.amax(dim=2) - values.amin(dim=2)).median() > MOST_MV:
        warnings.warn(f"half of the leads span more than {MOST_MV:g} mV: is this ECG in µV, or in stored units?", stacklevel=4)
    if fs_hz is None:
        return values
    if not LOWEST_FS_HZ <= fs_hz <= HIGHEST_FS_HZ:  # NaN neither
        raise InputError(f"fs_hz = {fs_hz:g}; an ECG has {LOWEST_FS_HZ:g} to {HIGHEST_FS_HZ:g} samples a second")
    if values.shape[2] < SHORTEST_S * fs_hz:
        raise InputError(f"an ECG of {values.shape[2]} samples at {fs_hz:g} Hz is shorter than {SHORTEST_S:g} s: not one whole beat")
    if not len(values):
        return values.new_zeros(0, len(LEADS), window_samples(settings))
    every = set(range(len(LEADS)))
    raw = (Decoded(row, every, float(fs_hz), "") for row in values.numpy())
    try:
        return torch.from_numpy(np.stack([windows(row, settings, mains_hz)[0].signal for row in raw]))
    except RecordError as error:
        raise InputError(f"an ECG of {values.shape[2]} samples at {fs_hz:g} Hz cannot be conditioned: {error.detail}") from None


def by_name(values: Tensor, leads: Sequence[str], any_leads: bool = False) -> Tensor:
    """Return channels (B, C, S) called `leads` as (B, 12, S) in the order of LEADS; limb leads that others give are derived.

    Others that are missing are zero with `any_leads`, else InputError is raised.
    """
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
    if missing and not any_leads:
        raise InputError(f"leads: missing {', '.join(missing)}, which the others do not give")
    return ordered
