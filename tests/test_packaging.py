"""What surrounds the code: metadata, citation, issue forms, Dockerfile."""

import re
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
import yaml

from stereopsis import __version__
from stereopsis.extras import PACKAGES

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_the_citation_file_names_this_version_and_both_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__ == version("stereopsis")
    assert cited["license"] == metadata("stereopsis")["License-Expression"]
    assert {each["url"].rpartition("/")[2] for each in cited["references"]} == {"2504.01901", "2506.01946"}


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_forms(form):
    content = yaml.safe_load(form.read_text())
    assert content["name"]
    assert content["description"]
    ids = [part["id"] for part in content["body"]]
    assert len(set(ids)) == len(ids)
    assert all(part["type"] in ("input", "textarea", "dropdown", "markdown") for part in content["body"])
    assert all(part["attributes"]["label"] for part in content["body"])


def test_the_dockerfile_copies_what_is_there_and_installs_what_is_declared():
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.*)$", text, re.M):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    assert re.search(r"^torch==[\d.]+$", (ROOT / "constraints.txt").read_text(), re.M)
    (extra,) = re.findall(r"^ARG EXTRAS=(\w+)$", text, re.M)
    assert extra in (metadata("stereopsis").get_all("Provides-Extra") or [])


def test_every_extra_that_the_program_names_is_declared():
    assert set(PACKAGES) <= set(metadata("stereopsis").get_all("Provides-Extra") or [])
