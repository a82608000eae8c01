"""What is in the wheel and in the sdist, and what they say of themselves; `make package` installs and runs them."""

import email
import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_has_the_package_and_the_benchmarks_but_not_what_they_found(wheel):
    names = set(wheel.namelist())
    expected = {f"shortback/{f.relative_to(ROOT / 'src/shortback').as_posix()}" for f in (ROOT / "src").rglob("*.py")}
    expected |= {f"shortback/_benchmarks/{f.name}" for f in (ROOT / "benchmarks").glob("*.py")}
    expected |= {"shortback/recipes/quickstart.yaml", "shortback/py.typed", "shortback/_benchmarks/peers/resnet.py"}
    assert expected <= names
    assert not [name for name in names if "results" in name or "__pycache__" in name or name.endswith(".pyc")]
    assert sum(info.compress_size for info in wheel.infolist()) < 3_300_000  # of which 2.6 million are images


def test_its_description_has_no_link_into_the_repository(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    metadata = email.message_from_string(wheel.read(name).decode())
    urls = dict(entry.split(", ") for entry in metadata.get_all("Project-URL"))
    assert {"Repository", "Documentation", "Changelog", "Issues"} == set(urls)
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert links
    assert all(re.match(r"https?:|#", link) for link in links), links
    inside = [link.partition("/main/")[2] for link in links if link.startswith(urls["Repository"])]
    assert inside
    assert all((ROOT / link.partition("#")[0]).exists() for link in inside), inside


def test_the_sdist_is_complete(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "Makefile",
        "constraints.txt",
        "hatch_build.py",
        "CITATION.cff",
        "docs/method.md",
        "tests/__init__.py",
    ):
        assert name in names
    assert "examples/slurm.sbatch" in names
    assert "src/shortback/data/bundled/NOTICE" in names


def test_the_citation_names_the_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert citation["version"] == version[1]
    assert citation["preferred-citation"]["year"] == 2024
