"""The two nouns that travel the river: where a recording lies (Source), and the recording itself (Record)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The lead order of every array in cmelt."""

LEAD_SETS: dict[int, tuple[str, ...]] = {
    12: LEADS,
    6: ("I", "II", "III", "aVR", "aVL", "aVF"),
    4: ("I", "II", "III", "V2"),
    3: ("I", "II", "V2"),
    2: ("I", "II"),
    1: ("I",),
}
"""The reduced lead sets of the CinC 2021 challenge, by their number; of single leads, lead I."""

SPLITS = ("train", "val", "test")

FLAGS: dict[str, str] = {
    "padded": "shorter than the recipe's duration: zeros follow the signal",
    "cropped": "longer than the recipe's duration: start_s says where the kept window begins",
    "clipped": "some values do not fit 16 bits of lsb_uv and were clipped",
    "highpass_skipped": "the high-pass lies at or above 0.45 of the raw rate and was left out",
    "lowpass_skipped": "the low-pass lies at or above 0.45 of the raw rate and was left out",
    "notch_skipped": "the notch lies at or above 0.45 of the raw rate and was left out",
    "gain_assumed": "the header gives no gain: 200 adu/mV, as the WFDB format says",
    "leads_derived": "limb leads that were absent were computed from two others",
    "nan_filled": "short gaps of invalid samples were bridged by straight lines",
    "leads_zeroed": "leads that nothing gives were filled with zeros, as the recipe allows",
    "flat_lead": "at least one lead does not change in half of its seconds or more",
    "limb_leads_disagree": "the limb leads break their relations in more than 1 % of the samples, by more than 5 % of the QRS",
    "augmented_leads_swapped": "aVR, aVL and aVF fit the relations under each other's names; nothing was changed",
    "arm_leads_reversed": "lead I runs against V6, or against II and III: as if the arm electrodes were exchanged; nothing was changed",
    "amplitude_unusual": "the median lead's beats are smaller than 0.3 mV or larger than 4.5 mV",
    "gain_corrected": "the declared gain is known to be wrong for this database, and the amplitudes agree: the right one was used",
    "gain_doubtful": "the declared gain is known to be wrong for this database, but the amplitudes do not bear it out: it was kept",
    "saturated": "a lead rests on its own highest or lowest value again and again: the recorder was at its limit",
    "mains_noise": "at least one lead carries more than 0.05 mV of 50 or 60 Hz",
    "duplicate": "another recording of the same content comes earlier in this shard folder",
    "report_from_labels": "there is no report: its text was made from the labels",
}
"""The closed list of what may be said about a kept recording, each with what it means."""

DUPLICATE = "duplicate"
"""The one flag that compares recordings: it is set when a folder's index is put together, so a sample's own JSON does not have it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One row of a data set: where a recording lies below RAW, and what is known about it before it is decoded."""

    key: str
    """The record's own file name without extension, ``[A-Za-z0-9_-]``; unique within its data set."""
    path: str
    """Where the recording starts (a header, say), relative to RAW, with forward slashes."""
    patient_id: str = ""
    fold: int = 0
    split: str = "train"
    age: float | None = None
    sex: str = ""
    device: str = ""
    report_raw: str = ""
    codes: tuple[str, ...] = ()
    likelihoods: tuple[float, ...] = ()
    flags: tuple[str, ...] = ()
    """What is to be said of it already, of FLAGS."""
    mains_hz: float = 0.0
    """The frequency of the mains where it was recorded; 0 = the data set's."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A recording that goes no further: its key, where it lies below RAW, a reason of REASONS and what was found."""

    key: str
    path: str
    reason: str
    detail: str


@dataclass(slots=True)
class Record:
    """A recording: ``signal`` (12, samples) float32 in mV, leads in the order of LEADS, at ``fs_hz``."""

    signal: NDArray[np.float32]
    fs_hz: float
    source: Source
    fs_raw_hz: float
    raw_duration_s: float
    start_s: float = 0.0
    report: str = ""
    signal_sha1: str = ""
    flags: list[str] = field(default_factory=list)
