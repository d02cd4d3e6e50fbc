"""Every code block of the docs and the README is run, as it stands, on a small scale; or says above itself why it is not.

``python`` blocks run one after another in one namespace a page; of ``sh`` and ``console`` blocks every line, each a call of cmelt, in one
folder a page, on few simulated recordings and for few steps. Where a ``console`` block shows output, its first line must be printed,
but for figures. Data blocks (``json``, ``toml``) must parse; ``text`` is no code. ``<!-- not run: REASON -->`` or ``<!-- run by FILE -->``
above a block excepts it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cmelt.cli import app
from cmelt.text.tokenizer import hub_is_away
from tests.conftest import REPOSITORY
from tests.datasets import exports

PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
DATA: dict[str, Callable[[str], Any]] = {"json": json.loads, "toml": tomllib.loads}
RUN = {"python", "sh", "console"}
SHELL = {". .venv/bin/activate"}
"""Lines of the shell that are not cmelt's, and change nothing here."""
RECORDS = 120
LITTLE = {  # what is added to a command so that it is soon done
    "pretrain": [f"--set=train.{key}" for key in ("steps=2", "batch=8", "validate_every=2", "save_every=2", "validate_batches=1")],
    "finetune": ["--set=tune.epochs=1"],
    "probe": ["--seeds=1", "--fractions=100"],
    "ingest": ["--workers=1"],
    "simulate": [f"--records={RECORDS}", "--workers=1"],
    "generate train": [f"--set=train.{key}" for key in ("steps=2", "batch=8", "validate_batches=1")],
    "generate score": ["--limit=4"],
}
ALIASES = {"shards": ("demo", "hospital"), "runs": ("demo", "a", "b", "base", "tiny-1")}

pytestmark = pytest.mark.filterwarnings(  # webdataset leaves its tars to the garbage collector
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: where it begins, its info string, what stands above it, its text."""

    page: Path
    line: int
    info: str
    mark: str
    text: str

    @property
    def where(self) -> str:
        """Return PAGE:LINE."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = BLOCK.finditer(text)
    return [Block(page, text.count("\n", 0, one.start()) + 1, one["info"], one["mark"] or "", one["text"]) for one in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
TO_RUN = [page for page in PAGES if any(block.info in RUN and not block.mark for block in BLOCKS if block.page == page)]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the pages take for granted: a raw folder, shards, a run, files as hospitals export them."""
    place = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        call("cmelt simulate raw --seed 1")
        call("cmelt ingest ptbxl raw shards/ptbxl --set signal.fs_hz=100")
        call("cmelt pretrain --shards shards/ptbxl --out runs/ptbxl")
        call("cmelt probe --run runs/ptbxl")
    for room, names in ALIASES.items():
        for name in names:
            shutil.copytree(place / room / "ptbxl", place / room / name)
    mv = np.random.default_rng(0).normal(0, 0.3, (12, 5000))
    (place / "exports").mkdir()
    exports.muse(place / "exports/one.xml", mv)
    exports.dicom(place / "exports/two.dcm", mv)
    (place / "exports/three.xml").write_text("<RestingECG><Waveform>", encoding="utf-8")
    (place / "reports.csv").write_text("key,report,patient\none,sinus rhythm,7\ntwo,normal ecg,8\n", encoding="utf-8")
    (place / "published-splits").mkdir()
    keys = [path.stem for path in sorted((place / "raw").rglob("records500/*/*.hea"))]
    for number, name in enumerate(("train", "val", "test")):
        (place / f"published-splits/{name}.csv").write_text("\n".join(["key", *keys[number::3]]), encoding="utf-8")
    return place


@pytest.fixture
def _without_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the machine one without the hub and its cache, as the pages tell of it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    hub_is_away.cache_clear()
    yield
    hub_is_away.cache_clear()


@pytest.mark.usefixtures("_without_hub")
@pytest.mark.parametrize("page", TO_RUN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_blocks_of_a_page_run(page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shards", "runs", "published-splits"):
        shutil.copytree(prepared / name, tmp_path / name)
    for name in ("raw", "exports", "reports.csv"):
        (tmp_path / name).symlink_to(prepared / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.mark or block.info not in RUN:
            continue
        if block.info == "python":
            exec(compile("\n" * block.line + block.text, block.where, "exec"), names)  # the page's own words
            continue
        for command, shown in commands(block):
            told = call(command)
            if shown:
                assert as_shape(shown) in {as_shape(line) for line in told.splitlines()}, (
                    f"{block.where}: {command} does not say {shown!r}\n{told}"
                )


def commands(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a block, each with the first line of what is shown of its output ('' for none)."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.info == "sh":
        lines = [line for line in lines if line.strip() and not line.startswith("#") and line not in SHELL]
        return [(line, "") for line in lines]
    found: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.strip() and not found[-1][1]:
            found[-1] = (found[-1][0], line)
    return found


def call(line: str) -> str:
    """Run a line that calls cmelt, on a small scale; return what it printed."""
    program, verb, *words = shlex.split(line.replace("/raw/ptb-xl", "raw"), comments=True)
    assert program == "cmelt", f"not a command of cmelt: {line}; say above its block why it is not run"
    words += LITTLE.get(verb, []) + LITTLE.get(" ".join([verb, *words[:1]]), [])
    if verb == "pretrain":
        words = ["tiny" if word in {"base", "small"} else word for word in words]
    new = {"simulate": 0, "ingest": 2}.get(verb)
    if new is not None and not {"--dry-run", "--extend", "--retry-failed"} & set(words):
        made = Path(words[new])
        made.unlink() if made.is_symlink() else shutil.rmtree(made, ignore_errors=True)
    if "--out" in words and verb == "pretrain":
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    done = CliRunner(env={"COLUMNS": "120"}).invoke(app, [verb, *words])
    assert done.exit_code == 0 or (verb, done.exit_code) == ("doctor", 1), f"{line}\n{done.output}\n{done.exception!r}"
    return done.output


def as_shape(line: str) -> str:
    """Return a line of output without its figures and the width of its columns."""
    return " ".join(re.sub(r"\d[\d.,:]*", "0", line).split())


def test_what_is_not_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    for block in BLOCKS:
        assert block.info in RUN | DATA.keys() | {"csv", "text"}, f"{block.where}: ```{block.info}: no known kind of block"
        assert not block.mark or re.match(r"not run: \S|run by ", block.mark), f"{block.where}: {block.mark}"
        if block.info in DATA and not block.mark:
            DATA[block.info](block.text)
        assert block.info != "csv" or block.mark, f"{block.where}: say which test reads it"
        for file in re.findall(r"tests/[\w/]+\.py", block.mark):
            assert (REPOSITORY / file).is_file(), f"{block.where}: {file} is not there"
    left = [block for block in BLOCKS if block.mark.startswith("not run")]
    run = [block for block in BLOCKS if block.info in RUN and not block.mark]
    with capsys.disabled():
        print(f"\n{len(run)} blocks of the docs run, {len(left)} do not:")  # noqa: T201
        print("\n".join(f"  {block.where}  {block.mark.removeprefix('not run: ')}" for block in left))  # noqa: T201
    assert len(left) < len(run)
