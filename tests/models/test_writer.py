"""A model that writes reports: what it reads, its loss, what it writes, what lies on disk; made here and begun from another's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from cmelt.config_tasks import WriterSettings
from cmelt.errors import CheckpointError, InputError, RecipeError
from cmelt.models.writer import REPORTS, Reading, Writer, waveforms
from cmelt.text.tokenizer import ReportTokenizer
from cmelt.tokens.ecg import ECGTokenizer, Scale
from cmelt.tokens.train import learn, pieces

LEADS = ("I", "V1", "V5")
TEXTS = ["sinus rhythm. normal ecg.", "atrial fibrillation.", "left bundle branch block. left axis deviation.", "sinus rhythm."]
SIZES = {
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


def ecgs(count: int = 4, samples: int = 120) -> np.ndarray:
    """Return ECGs (count, 3, samples) in mV of different rates, so of different lengths in tokens."""
    time = np.arange(samples) / 50
    return np.stack([[np.sin(2 * np.pi * (n + lead) * time / 2) for lead in range(3)] for n in range(count)]).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer() -> ECGTokenizer:
    """Return a tokenizer of three leads at 50 Hz."""
    scale = Scale(LEADS, 50.0, -1.0, 1.0, 12)
    return ECGTokenizer(scale, learn(pieces(scale.quantise(ecg) for ecg in ecgs(12)), 12, 60))


def made(tokenizer: ECGTokenizer, kind: str = "llama", **changes: object) -> Writer:
    """Return a small model of `kind` made here, not trained."""
    settings = WriterSettings.model_validate({"name": kind, "config": SIZES[kind], "text_vocab": 80, **changes})
    return Writer.create(settings, tokenizer, TEXTS, Reading(2.0, 300, 60, {}), seed=1).eval()


def test_what_is_read_are_the_leads_tokens_each_lead_behind_its_mark(tokenizer: ECGTokenizer) -> None:
    writer, ecg = made(tokenizer), ecgs()
    for prompt, one in zip(writer.prompts(ecg, LEADS, 50.0), ecg, strict=True):
        (ids,) = tokenizer.encode(one[:, 10:110])  # two seconds, from the middle
        assert (prompt[0], prompt[-1]) == (writer.end + 1, writer.end + 2)
        assert (prompt[prompt >= writer.first_ecg] - writer.first_ecg).tolist() == ids.tolist()
        marks = np.flatnonzero((prompt >= writer.lead_mark) & (prompt < writer.first_ecg))
        assert prompt[marks].tolist() == [writer.lead_mark + lead for lead in range(3)]
        for first, last, lead in zip(marks, [*marks[1:], len(prompt) - 1], one[:, 10:110], strict=True):
            assert tokenizer.ends(prompt[first + 1 : last] - writer.first_ecg)[-1] == len(lead)
    more = np.concatenate([ecg[:, [2]], np.repeat(ecg, 2, axis=2)[:, :, :120], ecg[:, [1, 0]]], axis=1)
    picked = writer.prompts(more, ("V5", "II", "III", "aVR", "V1", "I"), 50.0)
    assert all(np.array_equal(a, b) for a, b in zip(picked, writer.prompts(ecg, LEADS, 50.0), strict=True)), "leads go by name"
    with pytest.raises(InputError, match="no lead V5"):
        writer.prompts(ecg[:, :2], ("I", "V1"), 50.0)


@pytest.mark.parametrize("kind", SIZES)
def test_the_loss_is_that_of_each_recording_by_itself(tokenizer: ECGTokenizer, kind: str) -> None:
    writer = made(tokenizer, kind)
    prompts, texts = writer.prompts(ecgs(), LEADS, 50.0), writer.texts(TEXTS)
    assert len({len(prompt) for prompt in prompts}) > 1
    assert all(text[-1] == writer.end for text in texts)
    together, count = writer.loss(prompts, texts)
    alone = [writer.loss([prompt], [text])[0].item() for prompt, text in zip(prompts, texts, strict=True)]
    assert together.item() == pytest.approx(sum(alone), rel=1e-4), "padding takes no part"
    assert count == sum(map(len, texts))
    by_hand = 0.0
    for place, token in enumerate(texts[0]):  # one word after the other, as it is written
        read = np.concatenate([prompts[0], texts[0][:place]])[None].astype(np.int64)
        logits = writer(read, np.ones_like(read), 1)[0, -1, : writer.end + 1]
        by_hand -= logits.log_softmax(0)[token].item()
    assert alone[0] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("kind", SIZES)
def test_greedy_takes_the_likeliest_word_and_beams_a_likelier_report(tokenizer: ECGTokenizer, kind: str) -> None:
    writer = made(tokenizer, kind)
    with torch.no_grad():
        for parameter in writer.model.get_output_embeddings().parameters():
            parameter.mul_(12)  # an untrained model's choices, told apart
    prompts = writer.prompts(ecgs(), LEADS, 50.0)
    greedy = writer.write(prompts)
    ids: list[int] = []
    while len(ids) < writer.reading.text_tokens and (not ids or ids[-1] != writer.end):
        read = np.concatenate([prompts[1], ids])[None].astype(np.int64)
        ids.append(int(writer(read, np.ones_like(read), 1)[0, -1, : writer.end + 1].argmax()))
    assert greedy[1] == [writer.reports.decode([one for one in ids if one < writer.end]).strip()]
    best = writer.write(prompts[:2], beams=3, best=3)
    assert [len(row) for row in best] == [3, 3]
    assert writer.write(prompts[:1]) == greedy[:1], "the others of a batch have no part in it"


def test_disk_gives_back_what_was_saved(tokenizer: ECGTokenizer, tmp_path: Path) -> None:
    writer = made(tokenizer)
    writer.save_pretrained(tmp_path / "w")
    again = Writer.from_pretrained(tmp_path / "w")
    prompts, texts = writer.prompts(ecgs(), LEADS, 50.0), writer.texts(TEXTS)
    assert again.loss(prompts, texts)[0].item() == writer.loss(prompts, texts)[0].item()
    assert (again.reading, again.end) == (writer.reading, writer.end)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "w").config.vocab_size == writer.first_ecg + tokenizer.vocab_size
    assert {file.suffix for file in (tmp_path / "w").iterdir()} == {".json", ".safetensors"}
    longer = Writer.create(WriterSettings(name=str(tmp_path / "w")), tokenizer, [], Reading(1.0, 500, 50, {}), 0)
    assert longer.reading == Reading(1.0, 300, 50, {}), "a run to go on from has its own room"
    assert torch.equal(longer.model.get_input_embeddings().weight, writer.model.get_input_embeddings().weight)
    other = ECGTokenizer(Scale(LEADS, 50.0, -1.0, 2.0, 12), tokenizer.backend)
    with pytest.raises(CheckpointError, match="another ECG tokenizer"):
        Writer.create(WriterSettings(name=str(tmp_path / "w")), other, [], writer.reading, 0)
    (tmp_path / "w" / REPORTS).write_text("{")
    with pytest.raises(CheckpointError, match="does not load"):
        Writer.from_pretrained(tmp_path / "w")
    with pytest.raises(CheckpointError, match="make one with cmelt generate train"):
        Writer.from_pretrained(tmp_path)


def test_a_published_model_keeps_its_words_and_learns_ecg_tokens(tokenizer: ECGTokenizer, tmp_path: Path) -> None:
    words = ReportTokenizer.train(TEXTS, 70, 60).backend
    words.no_truncation()
    words.save(str(tmp_path / "tokenizer.json"))
    torch.manual_seed(3)
    published = GPT2LMHeadModel(GPT2Config(vocab_size=90, n_positions=200, bos_token_id=0, eos_token_id=1, **SIZES["gpt2"]))
    published.save_pretrained(tmp_path)
    writer = made(tokenizer, "gpt2", name=str(tmp_path), init="pretrained")
    assert (writer.end, writer.room) == (90, 200 - 60), "its own words come first, its own room counts"
    assert torch.equal(writer.model.get_input_embeddings().weight[:90], published.get_input_embeddings().weight)
    own = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(TEXTS[0], add_special_tokens=False).ids
    assert writer.texts(TEXTS[:1])[0].tolist() == [*own, 90]
    long = np.arange(900)
    assert len(writer.cut(long)) == writer.room
    assert writer.cut(long)[-1] == 899, "the report's mark stays"
    with pytest.raises(CheckpointError, match="is not to be had"):
        made(tokenizer, "gpt2", name=str(tmp_path / "none"), init="pretrained")


def test_tokens_that_look_alike_begin_alike(tokenizer: ECGTokenizer) -> None:
    shapes = waveforms(tokenizer)
    near = np.linalg.norm(shapes[:, None] - shapes[None], axis=2)
    np.fill_diagonal(near, np.inf)

    def likeness(writer: Writer) -> float:
        rows = torch.nn.functional.normalize(writer.model.get_input_embeddings().weight[writer.first_ecg :])
        return float((rows * rows[torch.from_numpy(near.argmin(1))]).sum(1).detach().mean())

    assert likeness(made(tokenizer)) > 0.5
    assert abs(likeness(made(tokenizer, shapes=False))) < 0.3


def test_settings_that_cannot_be_say_so(tokenizer: ECGTokenizer) -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'llama'.*init=pretrained"):
        made(tokenizer, "llama", name="lama")
    with pytest.raises(RecipeError, match="did you mean 'hidden_size'"):
        made(tokenizer, "llama", config={"hidden_sizes": 3})
    with pytest.raises(RecipeError, match="take a causal one"):
        made(tokenizer, "llama", name="vit", config={})
