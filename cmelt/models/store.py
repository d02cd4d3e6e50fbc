"""A checkpoint on disk: model.safetensors, config.json, the tokenizer's files and a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cmelt import __version__
from cmelt.errors import CheckpointError, OutputError
from cmelt.files import telling
from cmelt.text.tokenizer import ReportTokenizer, hub_is_away

if TYPE_CHECKING:
    from cmelt.models.cmelt import CMELT

WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.json", "tokenizer.json", "README.md"

SHIPPED = Path(__file__).parents[1] / "shipped" / "cmelt-sim-small"
"""The checkpoint that comes with cmelt, known by its name too: a small model that learnt from simulated ECGs alone."""

M = TypeVar("M", bound=nn.Module)


def write(model: CMELT, folder: Path, half: bool = False) -> None:
    """Write weights (in half precision with `half`), config, tokenizer and model card of `model` into `folder`."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_tensors({name: value.half() for name, value in weights.items()} if half else weights, folder / WEIGHTS)
    config = {"cmelt_version": __version__} | model.config.model_dump(mode="json")
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if model.tokenizer is not None:
        model.tokenizer.save(folder)
    (folder / CARD).write_text(card(model), encoding="utf-8")


def save_tensors(tensors: dict[str, Tensor], file: Path, **facts: str) -> None:
    """Write `tensors`, and `facts` about them, as a safetensors file with the rights that any new file has; raises OutputError."""
    with telling(file):
        file.touch()
        mode = file.stat().st_mode
        try:
            save_file(tensors, file, {"format": "pt", **facts})
        except SafetensorError as error:  # of the system's errors the library tells the text only
            raise OutputError(f"cannot write {file}: {error}; make room there, or choose another place") from None
        file.chmod(mode)  # the library lets nobody but the owner read it


def folder_of(source: str | Path, revision: str | None, cache_dir: str | Path | None, token: str | bool | None) -> Path:
    """Return the folder of a checkpoint: `source` itself, SHIPPED by its name, or a local copy of the hub repository of that name."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if str(source) == SHIPPED.name:
        return SHIPPED
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(str(source), revision=revision, cache_dir=cache_dir, token=token, local_files_only=hub_is_away()))
    except (HfHubHTTPError, HFValidationError, OSError):
        raise CheckpointError(f"{source}: no such checkpoint folder, nor a model on the hub or in its cache; give a run folder") from None


def read_config(folder: Path) -> dict[str, Any]:
    """Return the table of a checkpoint's config.json."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(f"{folder}: no {CONFIG}; this is not a checkpoint") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG}: damaged ({error}); take the checkpoint from its source again") from None
    if not isinstance(config, dict) or "format_version" not in config:
        raise CheckpointError(f"{folder / CONFIG}: not the config of a cmelt checkpoint")
    return {key: value for key, value in config.items() if key != "cmelt_version"}


def read_tokenizer(folder: Path, max_tokens: int) -> ReportTokenizer | None:
    """Return the checkpoint's tokenizer, or None where it has none."""
    return ReportTokenizer.load(str(folder), max_tokens) if (folder / TOKENIZER).is_file() else None


def fill(model: M, folder: Path) -> M:
    """Load the weights of `folder` into `model`, every tensor by name, and return it in evaluation mode."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{folder}: no {WEIGHTS}; the checkpoint is not whole")
    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged ({error}); take the checkpoint from its source again") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{file}: does not fit its {CONFIG} ({reason})") from None
    return model.eval()


def card(model: CMELT) -> str:
    """Return a model card for `model`: what it is, how to load it, how it was made, what it is not for."""
    config = model.config
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    start = "pre-trained weights" if config.text_init == "pretrained" else "**random weights**, trained here"
    text = config.text
    layers = text.get("num_layers", text.get("num_hidden_layers", "?"))
    return f"""---
library_name: cmelt
pipeline_tag: feature-extraction
tags: [ecg, electrocardiogram, medical, multimodal]
---
# C-MELT checkpoint

An ECG encoder and a text encoder, pre-trained together on 12-lead ECGs and their reports (C-MELT, arXiv 2410.02131),
with cmelt {__version__}.

```python
from cmelt import CMELT

model = CMELT.from_pretrained("PATH OR HUB NAME")
ecg = model.encode_ecg(ecg_mv, fs_hz=500, leads=["I", "II", ...])  # (B, {config.width})
text = model.encode_text(["sinus rhythm. normal ecg."])  # (N, {config.width})
```

| | |
| --- | --- |
| parameters | {millions:.1f} M |
| input | 12 leads ({", ".join(config.leads)} inside; any order by name), {config.fs_hz:g} Hz, {config.samples} samples, mV |
| text encoder | {config.text_encoder} ({text["model_type"]}, {layers} layers), started from {start} |
| embedding | {config.width} numbers, pooled from {"the first token" if config.pool == "cls" else "the mean over tokens"} |

How it was trained stands in `recipe.json` beside it, where a run made it.
For research: it is no medical device, and no clinical decision may rest on it.
"""
