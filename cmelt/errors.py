"""Every error that cmelt raises on purpose.

CmeltError                 one line: what, where, and what to do next; the command line exits with code 2
├── InputError             a raw folder, file or argument is not what the command needs
│   └── RecordError        one recording is refused, for a reason of REASONS; the others go on
├── OutputError            the destination holds something else, or cannot be written
├── RecipeError            an unknown or ill-typed recipe key
├── ShardError             a shard folder is unfinished, damaged or does not fit the others
├── CheckpointError        a run or checkpoint is missing, damaged or does not fit the shards
├── TaskError              an unknown task, or one that these shards cannot serve
└── MissingExtra           an optional library is not installed
"""

from __future__ import annotations

REASONS: dict[str, str] = {
    "bad_row": "the row of the data set's table cannot be understood",
    "no_row": "the data set's table has no row for this recording",
    "missing_file": "a file that the data set's table names is not in the raw folder",
    "bad_header": "the header cannot be understood",
    "path_outside": "the header names a file outside its own folder",
    "truncated": "the signal file is shorter than its header says",
    "unreadable": "the signal file cannot be decoded",
    "missing_leads": "leads are absent that the recipe needs and the others do not give",
    "too_short": "the record holds too few samples to condition",
    "nan": "too many samples are NaN or infinite",
    "no_signal": "every lead is flat",
    "no_split": "the split files that were given do not name the recording",
    "duplicate_key": "another record of this data set has the same key",
}
"""The closed list of reasons for which a recording is refused, each with what it means."""


class CmeltError(Exception):
    """An expected failure; its text says in one line what happened, where, and what to do."""


class InputError(CmeltError):
    """A raw folder, file or argument is not what the command needs."""


class RecordError(InputError):
    """One recording is refused; ``reason`` is a key of REASONS, ``detail`` says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[RecordError], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


class OutputError(CmeltError):
    """The destination holds something else, or cannot be written."""


class RecipeError(CmeltError):
    """An unknown or ill-typed recipe key."""


class ShardError(CmeltError):
    """A shard folder is unfinished, damaged or does not fit the others."""


class CheckpointError(CmeltError):
    """A run or checkpoint is missing, damaged or does not fit the shards."""


class TaskError(CmeltError):
    """An unknown task, or one that these shards cannot serve."""


class MissingExtra(CmeltError):
    """An optional library is not installed; the text says which extra brings it."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed; it comes with: pip install 'cmelt[{extra}]'")
