"""Recipes: TOML in, typed and validated settings out.

A recipe says what is done to the data, never where things are. Named ones lie in ``pipelines/VERB/NAME.toml``; ``--set`` changes keys.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cmelt.errors import RecipeError


class Settings(BaseModel):
    """A table of a recipe; unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SignalSettings(Settings):
    """How a decoded record is conditioned. A filter is off at 0."""

    fs_hz: float = Field(500.0, gt=0, le=100_000)
    """Hz to which recordings are resampled."""
    duration_s: float = Field(10.0, gt=0, le=86_400)
    """Seconds of a sample; longer recordings are cut, shorter ones followed by zeros."""
    highpass_hz: float = Field(0.5, ge=0)
    """Where the Butterworth band begins; what is slower is wander."""
    lowpass_hz: float = Field(100.0, ge=0)
    """Where it ends; left out, and flagged, at or above 0.45 of the raw rate."""
    filter_order: int = Field(3, ge=1, le=8)
    """The order of the Butterworth filter, which runs once in each direction."""
    notch_hz: Annotated[float, Field(ge=0)] | Literal["mains"] = "mains"
    """Where the notch lies; mains = the 50 or 60 Hz of the data set."""
    notch_q: float = Field(30.0, gt=0, le=1000)
    """How narrow the notch is: its frequency over its width."""
    window: Literal["first", "centre", "all"] = "centre"
    """Which part of a longer record is kept; all = every whole window, each a sample of its own."""
    missing_leads: Literal["refuse", "zero"] = "refuse"
    """What becomes of a record that lacks leads which the others do not give."""

    @model_validator(mode="after")
    def _band(self) -> SignalSettings:
        if self.highpass_hz and self.lowpass_hz and self.highpass_hz >= self.lowpass_hz:
            raise ValueError(f"highpass_hz {self.highpass_hz:g} does not lie below lowpass_hz {self.lowpass_hz:g}")
        return self


class ShardSettings(Settings):
    """How records are laid into shards."""

    samples_per_shard: int = Field(1000, ge=1)
    """Samples of a tar, the last one may have fewer; a shard is the unit of work."""
    seed: int = 0
    """Draws which recording lies in which shard."""


class IngestRecipe(Settings):
    """What ``cmelt ingest`` does to every record."""

    signal: SignalSettings = SignalSettings()
    shards: ShardSettings = ShardSettings()


class ModelSettings(Settings):
    """The sizes of a C-MELT model; the defaults are the published ones."""

    ecg_encoder: str = "conv"
    """The kind: conv (published); residual, convolutions with short cuts, for few records; lead-wise, tokens of one lead, any leads."""
    lead_token_s: float = Field(0.64, gt=0)
    """Seconds of its lead that a token of lead-wise stands for, about: whole outputs of the convolutions."""
    conv_layers: tuple[tuple[int, int, int], ...] = ((256, 2, 2),) * 4
    """Channels, kernel and stride of each convolution of the ECG tokeniser."""
    conv_norm: Literal["group", "none"] = "group"
    """After the first convolution: each channel standardised over time (published), which hides how large the waves are, or nothing."""
    input_norm: Literal["layer", "none"] = "layer"
    """After the last convolution: each token standardised over its channels (published), which hides the same, or nothing."""
    ecg_width: int = 768
    """W, the width of the ECG encoder's tokens."""
    ecg_layers: int = 8
    """Transformer layers of the ECG encoder."""
    ecg_heads: int = 12
    """Attention heads of a layer; they divide the width."""
    ecg_ffn: int = 3072
    """Width within the feed-forward part of a layer."""
    position_kernel: int = 128
    """Tokens that the convolution sees which tells tokens where they stand."""
    position_groups: int = 16
    """Groups of that convolution."""
    ecg_dropout: float = 0.1
    """On the projected tokens, before the transformer, and on both branches of its layers."""
    ecg_attention_dropout: float = 0.1
    """On the attention of the ECG encoder."""

    text_encoder: str = "google/flan-t5-base"
    """A hub name, a local path, or ``t5``: a T5 encoder of ``text_config``'s sizes, made here."""
    text_init: Literal["pretrained", "random"] = "pretrained"
    """Whether the text encoder begins with its published weights, or at random."""
    text_config: dict[str, int | float | str | bool] = {}
    """Sizes of a text encoder made here, by the names of T5's own configuration."""
    text_frozen: int = Field(0, ge=-1)
    """How many of the text encoder's first blocks, with its embedding, are not trained; -1 = none of it is trained."""
    tokenizer: str = ""
    """A hub name or local path; '' = the text encoder's; ``reports`` = trained on the training split's reports."""
    tokenizer_vocab: int = 2000
    """The size of a tokenizer trained on reports."""
    max_text_tokens: int = Field(128, ge=4)
    """Tokens of a report that are read; what follows is cut."""

    width: int = 768
    """D, the width of the projections, the fusion and the embeddings."""
    fusion_pairs: int = 6
    """Pairs of fusion layers: ECG attends to text, text to ECG."""
    fusion_heads: int = 12
    """Attention heads of the fusion."""
    fusion_dropout: float = 0.1
    """In the fusion layers."""

    decoder_width: int = 384
    """Width of the decoder that rebuilds removed ECG tokens."""
    decoder_blocks: int = 4
    """Its transformer blocks."""
    decoder_heads: int = 6
    """Its attention heads."""
    mem_layer: int = 3
    """The masked-ECG decoder reads the ECG tokens entering this fusion pair (0-based); -1 = the last output."""
    mem_prob: float = Field(0.75, ge=0, lt=1)
    """Share of the ECG tokens that are removed and must be rebuilt."""
    pool: Literal["cls", "mean"] = "cls"
    """What the uni-modal poolers read: the first token (published) or the mean over tokens."""
    entity_heads: int = Field(0, ge=0)
    """Attention heads of the entity queries, which read findings off the ECG tokens; 0 = the model has none (published)."""
    entity_read: Literal["heads", "direct", "mean"] = "heads"
    """How they read: by attention with heads and a norm (K-MERL); tokens weighed as they are; or their mean, as a linear probe does."""


class DataSettings(Settings):
    """Which samples are trained on."""

    leaks: Literal["drop", "refuse", "keep"] = "drop"
    """What becomes of a training sample whose recording is held out (val or test) in any of the given folders."""
    min_words: int = Field(1, ge=1)
    """Samples whose report has fewer words are left out of training, and counted; published: 3 or 4."""
    where: str = ""
    """Filter of the training split by index columns, ``fold <= 8 and device = 'CS100'``; '' = all of it."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Share of each data set (its name in the manifest) in every batch; {} = every sample exactly once an epoch."""
    shuffle_reports: int = Field(0, ge=0)
    """A control, for what true pairs are worth: other than 0, every training report goes to another sample of its folder, by this seed."""
    window: int = Field(16, ge=1)
    """Shards whose samples are shuffled together."""
    on_bad_shard: Literal["fatal", "skip"] = "fatal"
    """What becomes of a shard that is missing, truncated or (where they are verified) changed; skip leaves its samples out."""
    verify: Literal["size", "sha256"] = "size"
    """What is compared with the manifest at the start; sha256 reads every shard once. Shards fetched from a URL are always hashed."""
    cache_gb: float = Field(50.0, gt=0)
    """Room for shards fetched from a URL, in 10⁹ bytes."""
    threads: int = Field(2, ge=0)
    """Batches made ahead at the same time; 0 = when the loop asks for them. The batches are the same."""


class MaskingSettings(Settings):
    """What is hidden from the model in training."""

    leads: Literal["each", "dynamic"] = "each"
    """Each lead is hidden with lead_prob (published); or one to twelve are seen, each number as often, whatever lead_prob is."""
    lead_prob: float = Field(0.5, ge=0, lt=1)
    """Probability with which each lead is hidden: set to zero, or with lead-wise taken away."""
    text_prob: float = Field(0.15, ge=0, lt=1)
    """Probability with which each word piece is hidden; four in five become the mask, one in ten another piece."""


class AugmentSettings(Settings):
    """How ECGs are varied in training, as another body, heart rate or moment would have them; all off by default (published)."""

    turn_deg: float = Field(0.0, ge=0, le=90)
    """Standard deviation of the angle by which the heart's dipole is turned, about each of three axes."""
    size: float = Field(0.0, ge=0, le=1)
    """Of the logarithm by which the dipole's waves grow or shrink."""
    stretch: float = Field(0.0, ge=0, le=1)
    """Of the logarithm by which time runs faster or slower."""
    roll: bool = False
    """Whether a sample begins anywhere in its recording, and goes on at its start."""


class ObjectiveSettings(Settings):
    """The losses: their weights in the sum (0 = off) and their forms."""

    mlm: float = Field(1.0, ge=0)
    """Weight of masked language modelling."""
    mem: float = Field(1.0, ge=0)
    """Weight of masked ECG modelling."""
    etm: float = Field(1.0, ge=0)
    """Weight of ECG-text matching."""
    ets: float = Field(1.0, ge=0)
    """Weight of the ECG-text contrast."""
    entities: float = Field(0.0, ge=0)
    """Weight of the findings that the true report states, asked of the ECG (K-MERL); wants ``model.entity_heads``."""
    mem_target: Literal["original", "input"] = "original"
    """What is rebuilt: the ECG before leads were hidden, or as the model saw it (published)."""
    ets_form: Literal["published", "siglip", "infonce"] = "published"
    """Sigmoids of plain products; of normalised ones with learnt temperature and bias; or a softmax over the batch."""
    ets_target: Literal["report", "diagonal"] = "report"
    """Who belongs together: equal reports, or only the pair itself (published)."""
    entities_uncertain: float = Field(0.75, ge=0, le=1)
    """How probable a finding is that a report hedges: so many have the code in PTB-XL, see docs/concepts/entities.md."""
    entities_unsaid: float = Field(1.0, ge=0, le=1)
    """What a finding that the report does not speak of weighs, taken as absent; 0 = it is not scored."""


class NegativeSettings(Settings):
    """How wrong reports are drawn (the paper's nearest-neighbour negative sampling, made fair)."""

    mode: Literal["balanced", "antipodal", "random"] = "balanced"
    """The batch's reports change places; far reports as published; or any other report."""
    within: str = "device"
    """Index column whose first word groups the rows; '' = one group."""
    embeddings: str = "tfidf"
    """``tfidf`` (offline) or ``hf:NAME_OR_PATH``."""


class OptimSettings(Settings):
    """AdamW and its schedule."""

    lr: float = Field(5e-5, gt=0)
    """The peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """How slowly AdamW's two averages forget."""
    weight_decay: float = Field(0.01, ge=0)
    """Of the weights of matrices; biases and norms have none."""
    schedule: Literal["tri-stage", "cosine", "constant"] = "tri-stage"
    """Rise, hold and exponential fall (published); rise and cosine; or rise only."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the rate rises."""
    hold: float = Field(0.4, ge=0, le=1)
    """Share of the steps at the peak rate (tri-stage)."""
    final: float = Field(0.01, ge=0, le=1)
    """The last rate as a share of the peak."""
    clip: float = Field(1.0, ge=0)
    """Gradient norm above which gradients are scaled down; 0 = off."""


class TrainSettings(Settings):
    """The loop."""

    steps: int = Field(300_000, ge=1)
    """Steps of the optimiser."""
    batch: int = Field(128, ge=2)
    """Pairs over all ranks together: they are contrasted with one another, and wrong reports are dealt among them."""
    accumulate: int = Field(1, ge=1)
    """A step averages the gradients of so many batches; each is contrasted within itself."""
    seed: int = 0
    """Of weights, order, masks and wrong reports."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; auto = bf16 on a GPU that has it, else fp32."""
    recompute: bool = False
    """Layers keep their inputs only and are computed again in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """The model is compiled (torch.compile): minutes at the start, faster steps on a GPU."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the averaged weights that are saved and evaluated; 0 = off."""
    log_every: int = Field(10, ge=1)
    """Steps between lines of metrics.jsonl."""
    validate_every: int = Field(1000, ge=1)
    """Steps between validations; the chosen model is one that was validated."""
    save_every: int = Field(1000, ge=1)
    """Steps between training states."""
    validate_batches: int = Field(8, ge=1)
    """At most so many batches of the validation split are read each time."""
    pictures_every: int = Field(0, ge=0)
    """Steps between pictures of rebuilt ECGs and of retrieved reports; 0 = none."""
    keep: int = Field(2, ge=1)
    """How many training states are kept, the newest."""
    select: Literal["loss", "mlm", "mem", "etm", "ets", "entities", "retrieval", "last"] = "loss"
    """Which model the run folder holds: the best on the validation split by this, or the last."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Who is told the figures beside metrics.jsonl."""
    on_nan: Literal["fatal", "skip"] = "fatal"
    """What becomes of a step whose loss or gradient is not finite."""
    on_save_error: Literal["fatal", "skip"] = "fatal"
    """What becomes of a run that cannot save (a full disk): ended, or gone on with, trying again next time."""


class PretrainRecipe(Settings):
    """What ``cmelt pretrain`` does."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    masking: MaskingSettings = MaskingSettings()
    augment: AugmentSettings = AugmentSettings()
    objectives: ObjectiveSettings = ObjectiveSettings()
    negatives: NegativeSettings = NegativeSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _together(self) -> PretrainRecipe:
        if bool(self.objectives.entities) != bool(self.model.entity_heads):
            raise ValueError("objectives.entities trains the queries of model.entity_heads: both are 0, or neither")
        if self.objectives.mem and not self.model.mem_prob:
            raise ValueError("objectives.mem rebuilds what model.mem_prob removes, and that is nothing; set objectives.mem=0, or raise it")
        return self


RECIPES = {
    "ingest": "cmelt.config:IngestRecipe",
    "pretrain": "cmelt.config:PretrainRecipe",
    "finetune": "cmelt.config_tasks:FinetuneRecipe",
    "generate": "cmelt.config_tasks:GenerateRecipe",
}
"""Where the recipe type of each verb that reads one is."""

R = TypeVar("R", bound=Settings)


def recipe_type(verb: str) -> type[Settings]:
    """Return the recipe type of a verb."""
    module, _, name = RECIPES[verb].partition(":")
    kind: type[Settings] = getattr(import_module(module), name)
    return kind


def recipe_folder() -> Path:
    """Return the folder of named recipes: inside an installed package, else beside it in a checkout."""
    inside = Path(__file__).with_name("pipelines")
    return inside if inside.is_dir() else inside.parents[1] / "pipelines"


def load_recipe(verb: str, name: str, changes: Iterable[str] = ()) -> Any:
    """Read recipe `name` (a name, or a path ending in .toml) of `verb`, apply ``a.b=c`` changes, validate.

    Returns the verb's recipe object. Raises RecipeError for an unknown recipe, key or value.
    """
    file = Path(name) if name.endswith(".toml") else recipe_folder() / verb / f"{name}.toml"
    if not file.is_file():
        known = sorted(f.stem for f in (recipe_folder() / verb).glob("*.toml"))
        raise RecipeError(f"no recipe {name!r} for {verb}{did_you_mean(name, known)}; known: {', '.join(known)}, or a path ending in .toml")
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: not a TOML file ({error})") from None
    for change in changes:
        set_key(table, change)
    return validate(recipe_type(verb), table, str(file))


def set_key(table: dict[str, Any], change: str) -> None:
    """Apply one ``a.b=c`` to a nested table in place; c is read as a TOML value, else taken as a string."""
    path, equals, text = change.partition("=")
    if not equals or not all(path.split(".")):
        raise RecipeError(f"--set {change}: write it as section.key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, key = (part.strip() for part in path.split("."))
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {change}: {section!r} is a value, not a section")
    table[key] = value


def validate(kind: type[R], table: dict[str, Any], where: str) -> R:
    """Return `table` as settings of `kind`; raises RecipeError naming the first wrong key and the nearest right one."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key, known = ".".join(str(part) for part in first["loc"]), known_keys(kind)
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: unknown recipe key {key!r}{did_you_mean(key, known)}") from None
        if first["type"] == "value_error":  # of a whole section: the text says which keys
            raise RecipeError(f"{where}: {key}: {first['ctx']['error']}") from None
        key = next((name for name in known if key.startswith(f"{name}.")), key)  # an alternative of a union is no part of the key
        raise RecipeError(f"{where}: {key} = {first['input']!r}: {first['msg'].lower()}") from None


def known_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every dotted key of a settings class."""
    keys = []
    for name, info in kind.model_fields.items():
        options = [info.annotation, *get_args(info.annotation)]
        section = next((option for option in options if isinstance(option, type) and issubclass(option, Settings)), None)
        keys += known_keys(section, f"{prefix}{name}.") if section else [prefix + name]
    return keys


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``'; did you mean X?'`` for the known word nearest to `word`, or ''."""
    known = list(known)
    tails = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(word, known, 1) or [tails[t] for t in difflib.get_close_matches(word.rsplit(".", 1)[-1], tails, 1)]
    return f"; did you mean {near[0]!r}?" if near else ""
