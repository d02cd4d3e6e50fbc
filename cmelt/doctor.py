"""Look at the machine, the installation, shard folders and a recipe, and say what is missing, with what to do about it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmelt import __version__
from cmelt.config import PretrainRecipe, load_recipe
from cmelt.errors import CheckpointError, CmeltError
from cmelt.remote import free_bytes
from cmelt.shards.workers import available_cores

if TYPE_CHECKING:
    from rich.table import Table

VERSIONS = ("torch", "accelerate", "transformers", "numpy", "pyarrow", "safetensors")
"""The libraries whose versions a question about a problem needs."""

ROOM_BYTES = 5e9
"""Less free disk than this is told as scarce, where no recipe says how much is needed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: ``ok`` is False where something is missing or wrong; `do` then says what helps."""

    area: str
    what: str
    found: str
    ok: bool = True
    do: str = ""


def doctor(recipe: str = "", changes: Sequence[str] = (), shards: Sequence[Path | str] = (), out: Path = Path()) -> dict[str, Any]:
    """Look at everything; returns whether all is well, and what was found. `out` is where runs are to lie."""
    findings = [*_versions(), *_devices(), *_extras()]
    for folder in shards:
        findings += _shards(folder)
    need = 0.0
    if recipe:
        found, need = _recipe(recipe, changes, shards)
        findings += found
    findings.append(_disk(out, need))
    return {"ok": all(one.ok for one in findings), "findings": [asdict(one) for one in findings]}


def _versions() -> Iterator[Finding]:
    """Find the versions of cmelt, Python and what cmelt stands on."""
    yield Finding("versions", "cmelt", __version__)
    yield Finding("versions", "Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in VERSIONS:
        yield Finding("versions", name, metadata.version(name))


def _devices() -> Iterator[Finding]:
    """Find processors, memory and GPUs."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("devices", "CPU", f"{available_cores()} cores, {memory / 1e9:.0f} GB memory, {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        yield Finding("devices", "GPU", f"none that torch {torch.__version__} sees: recipes tiny and small still run, base is slow")
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        kinds = "bf16, fp16, fp32" if torch.cuda.is_bf16_supported() else "fp16, fp32"
        yield Finding("devices", f"GPU {number}", f"{about.name}, {about.total_memory / 1e9:.0f} GB, {kinds}")


def _extras() -> Iterator[Finding]:
    """Find which optional libraries are installed, by extra, as the package itself lists them."""
    wanted: dict[str, list[str]] = {}
    for line in metadata.requires("cmelt") or ():
        match = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line)
        if match and match[1] != "cmelt" and match[2] != "dev":
            wanted.setdefault(match[2], []).append(match[1])
    for extra, names in sorted(wanted.items()):
        missing = [name for name in names if not _installed(name)]
        found = f"without {', '.join(missing)}: pip install 'cmelt[{extra}]' brings it" if missing else f"{', '.join(names)}: installed"
        yield Finding("extras", extra, found)  # an extra that is not there is no fault


def _installed(name: str) -> bool:
    """Say whether distribution `name` is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _shards(folder: Path | str) -> Iterator[Finding]:
    """Find what a shard folder holds, and which of its shards are not as its manifest says; their bytes are not hashed."""
    from cmelt.shards.read import ShardFolder

    try:
        there = ShardFolder(folder)
        bad = there.bad_shards()
        splits = {split: len(there.rows(split)) for split in ("train", "val", "test")}
    except CmeltError as error:
        yield Finding("shards", str(folder), "cannot be read", False, str(error))
        return
    counts = ", ".join(f"{split} {count:,}" for split, count in splits.items())
    yield Finding("shards", str(folder), f"{there.manifest['dataset']}: {counts}; {there.samples} samples at {there.fs_hz:g} Hz")
    if bad:
        name, problem = next(iter(bad.items()))
        said = f"{len(bad)} of {len(there.names)} shards are bad: {name} {problem}"
        yield Finding("shards", str(folder), said, False, "make them again with its cmelt ingest command, or set data.on_bad_shard=skip")
    else:
        yield Finding("shards", str(folder), f"{len(there.names)} shards there in full size (cmelt verify reads their bytes)")
    if not splits["train"] or not splits["val"]:
        yield Finding("shards", str(folder), "no training or no validation samples", False, "pre-training needs both; ingest with splits")


def _recipe(name: str, changes: Sequence[str], shards: Sequence[Path | str]) -> tuple[list[Finding], float]:
    """Find what pre-training by recipe `name` would lack here, and how many bytes its checkpoints need."""
    from cmelt.training.distributed import precision

    try:
        recipe: PretrainRecipe = load_recipe("pretrain", name, changes)
    except CmeltError as error:
        return [Finding("recipe", name, "cannot be read", False, str(error))], 0.0
    found = [
        Finding("recipe", f"tracker {tracker}", "not installed", False, f"pip install 'cmelt[{tracker}]', or take it out of train.trackers")
        for tracker in recipe.train.trackers
        if not _installed(tracker)
    ]
    kind = {"no": "fp32"}.get(precision(recipe.train.precision), precision(recipe.train.precision))
    found.append(Finding("recipe", "precision", f"{recipe.train.precision}: {kind} here"))
    if recipe.train.precision == "fp16" and not _has_gpu():
        found.append(Finding("recipe", "precision", "fp16 needs a GPU", False, "set train.precision=auto"))
    found.append(_text_encoder(recipe))
    count, said = _parameters(recipe, shards)
    found.append(said)
    state = count * 4 * (3 + bool(recipe.train.ema))  # weights, two moments, and their average
    need = (recipe.train.keep + 1) * state + count * 4
    if count:
        found.append(Finding("recipe", "checkpoints", f"{recipe.train.keep} states of {state / 1e9:.2f} GB and one being written"))
    return found, need


def _has_gpu() -> bool:
    """Say whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def _text_encoder(recipe: PretrainRecipe) -> Finding:
    """Find whether the text encoder and its tokenizer are at hand."""
    from cmelt.text.tokenizer import hub_is_away, not_found, tokenizer_files

    name, own = recipe.model.text_encoder, recipe.model.tokenizer
    if name == "t5" and own in ("", "reports"):
        return Finding("recipe", "text encoder", "made here; its tokenizer is learnt from the reports")
    try:
        if own != "reports" and tokenizer_files(own or name)[0] is None:
            raise CheckpointError(not_found(own or name))
    except CmeltError as error:
        return Finding("recipe", "tokenizer", "not at hand", False, str(error))
    if name == "t5" or recipe.model.text_init == "random" or Path(name).is_dir() or _is_cached(name):
        return Finding("recipe", "text encoder", f"{name}: at hand")
    if hub_is_away():
        do = "fill the cache (hf download), give model.text_encoder a local path, or set model.text_init=random"
        return Finding("recipe", "text encoder", f"{name}: not in the cache, and the hub cannot be reached", False, do)
    return Finding("recipe", "text encoder", f"{name}: will be fetched from the hub")


def _is_cached(name: str) -> bool:
    """Say whether the weights of hub repository `name` lie in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(name, file), str) for file in ("model.safetensors", "pytorch_model.bin"))


def _parameters(recipe: PretrainRecipe, shards: Sequence[Path | str]) -> tuple[int, Finding]:
    """Count the parameters of the recipe's model, made for the first of `shards`, without any memory for them."""
    import torch

    from cmelt.models.cmelt import CMELT, ModelConfig
    from cmelt.models.text_encoder import resolve_sizes
    from cmelt.shards.read import ShardFolder

    try:
        fs_hz, samples = 500.0, 5000
        if shards:
            folder = ShardFolder(shards[0])
            fs_hz, samples = folder.fs_hz, folder.samples
        text = resolve_sizes(recipe.model, recipe.model.tokenizer_vocab)
        config = ModelConfig(**recipe.model.model_dump(), fs_hz=fs_hz, samples=samples, text=text)
        with torch.device("meta"):
            count = sum(p.numel() for p in CMELT(config).parameters())
    except CmeltError as error:
        return 0, Finding("recipe", "model", "cannot be made", False, str(error))
    return count, Finding("recipe", "model", f"{count / 1e6:.1f} M parameters, for {samples} samples at {fs_hz:g} Hz")


def _disk(out: Path, need: float) -> Finding:
    """Find how much room there is where runs are to lie."""
    free, wanted = free_bytes(out), need or ROOM_BYTES
    said = f"{free / 1e9:.1f} GB free of {shutil.disk_usage(_there(out)).total / 1e9:.0f}"
    said += f"; checkpoints need {need / 1e9:.1f}" if need else ""
    return Finding(
        "disk", str(out.resolve()), said, free > wanted, "" if free > wanted else "make room, or choose another folder with --out"
    )


def _there(place: Path) -> Path:
    """Return the nearest folder above `place` that is there."""
    return next(folder for folder in (place, *place.resolve().parents) if folder.exists())


def table(result: dict[str, Any]) -> Table:
    """Return what was found as a table for people."""
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    area = ""
    for one in result["findings"]:
        mark = Text("✓", "green") if one["ok"] else Text("✗", "bold red")
        view.add_row(one["area"] if one["area"] != area else "", mark, one["what"], Text(one["found"]))
        if one["do"]:
            view.add_row("", "", "", Text(f"→ {one['do']}", "yellow"))
        area = one["area"]
    return view
