"""The wheel: built, installed in an environment of its own, and used from another folder as a newcomer would."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import cmelt
from cmelt.config import RECIPES
from tests.conftest import REPOSITORY


def run(*command: str | Path, folder: Path) -> str:
    """Run `command` in `folder` and return what it printed; fail where it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "CMELT_"))}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this checkout, built without the network."""
    folder = tmp_path_factory.mktemp("dist")
    how = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    run(sys.executable, "-m", "pip", "wheel", REPOSITORY, *how, "--wheel-dir", folder, folder=folder)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the scripts folder of a fresh environment with the wheel; what cmelt needs is lent to it from this one."""
    place = tmp_path_factory.mktemp("env")
    venv.create(place, with_pip=False, symlinks=os.name != "nt")
    scripts = place / Path(sysconfig.get_path("scripts")).name
    packages = Path(run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=place).strip())
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, folder=place)
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return scripts


def test_everything_that_the_package_reads_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = REPOSITORY / "cmelt"
    wanted = {f"cmelt/{file.relative_to(package).as_posix()}" for file in package.rglob("*") if file.is_file() and file.suffix != ".pyc"}
    wanted |= {f"cmelt/pipelines/{file.relative_to(REPOSITORY / 'pipelines').as_posix()}" for file in REPOSITORY.glob("pipelines/*/*.toml")}
    assert {"cmelt/py.typed", "cmelt/vocab/ptbxl.csv", "cmelt/templates/report.html", "cmelt/pipelines/ingest/clinical.toml"} <= wanted
    assert wanted <= names, sorted(wanted - names)
    assert not [name for name in names if not name.startswith(("cmelt/", f"cmelt-{cmelt.__version__}.dist-info/"))]


def test_it_works_from_a_fresh_environment_in_another_folder(scripts: Path, tmp_path: Path) -> None:
    place = run(scripts / "python", "-c", "import cmelt; print(cmelt.__file__)", folder=tmp_path)
    assert Path(place.strip()).is_relative_to(scripts.parent), "not the checkout's"
    assert "ingest" in run(scripts / "cmelt", "--help", folder=tmp_path)
    run(scripts / "cmelt", "simulate", "raw", "--records", "12", "--workers", "1", folder=tmp_path)
    run(scripts / "cmelt", "ingest", "ptbxl", "raw", "shards", "--workers", "1", folder=tmp_path)
    run(scripts / "cmelt", "inspect", "shards", "--html", "page.html", folder=tmp_path)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "ptbxl-simulated" in page
    assert "<svg" in page
    recipes = {verb: [file.stem for file in REPOSITORY.glob(f"pipelines/{verb}/*.toml")] for verb in RECIPES}
    assert all(recipes.values())
    load = f"from cmelt.config import load_recipe; [load_recipe(verb, name) for verb, names in {recipes}.items() for name in names]"
    run(scripts / "python", "-c", load, folder=tmp_path)
