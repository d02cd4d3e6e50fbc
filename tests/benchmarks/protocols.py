"""Probe one checkpoint by every protocol, side by side: ``python -m tests.benchmarks.protocols RUN SHARDS``.

1, 10 and 100 % of the labels of four tasks; superclass beside random initialisation (three seeds), amplitudes, and random convolutions
with ridge. Written to docs/results/protocols.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cmelt.tasks.probe import probe
from cmelt.tasks.protocol import PROTOCOLS
from tests.benchmarks.results import write_result

TASKS = {"superclass": ("random_init", "trivial", "random_conv"), "subclass": (), "form": (), "rhythm": ()}
"""Task → the baselines beside it."""
TOLD = ("n_train", "not_computed", "seeds", "macro_auc", "ci95", "sd_over_seeds", "last_epoch_auc", "best_minus_last")
MORE = ("auc_at_best_validation_epoch", "macro_ap", "macro_f1", "macro_ece")


def entry(found: dict[str, Any]) -> dict[str, Any]:
    """Return what the docs tell of one share of the labels."""
    out = {name: found[name] for name in (*TOLD, *MORE) if name in found}
    for name, base in found.get("baselines", {}).items():
        out[name] = {key: base[key] for key in ("macro_auc", "ci95", "difference", "difference_ci95", "best_minus_last") if key in base}
    return out


def main() -> None:
    """Probe, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("shards", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for task, baselines in TASKS.items():
        for protocol in PROTOCOLS:
            result = probe(options.run, [options.shards], task, baselines, protocol=protocol)
            told = figures.setdefault(task, {})
            told[protocol] = {f"{found['fraction']:.0%}": entry(found) for found in result["fractions"]}
            told["recordings"] = {name: result["fractions"][-1][name] for name in ("n_train", "n_val", "n_test")}
            told["left_out"] = sorted(result["fractions"][-1]["left_out"])
            told["in_training_and_test"] = {name: result[f"{name}_in_training_and_test"] for name in ("patients", "recordings")}
            figures["checkpoint_sha256"] = result["checkpoint_sha256"]
    write_result("protocols", figures)


if __name__ == "__main__":
    main()
