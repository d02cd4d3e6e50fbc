"""Reports in, plain English text out."""

from __future__ import annotations


def clean_report(text: str, dataset: str) -> str:
    """Return the report of a recording of `dataset` as the model reads it."""
    return " ".join(text.split())
