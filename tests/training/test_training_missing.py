"""What is missing is listed at once, with links, before anything is made."""

import json

import pytest

from stereopsis.training.downloads import DOWNLOADS, SCANNET, download_of
from stereopsis.training.missing import missing, told
from stereopsis.training.recipe import load_recipe, recipe_folders

SHIPPED = sorted(
    {path.stem for folder in recipe_folders() for path in (*folder.glob("*.yaml"), *folder.glob("ablations/*.yaml"))}
)


def test_a_papers_recipe_lists_everything_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = told(missing(load_recipe("ross3d+3drs-7b")))
    text = "\n".join(lines)
    for key in ("model.base", "data.sources.0", "evaluation.sources.0", "denoiser.init", "teachers.latent"):
        assert any(line.startswith(key) for line in lines), key
    for link in (
        "lmms-lab/LLaVA-Video-7B-Qwen2",
        "scan-net.org",
        "FLUX.1-dev",
        "facebook/VGGT-1B",
        "Video-3D-LLM_data",
    ):
        assert link in text
    assert "stereopsis convert DOWNLOADED models/LLaVA-Video-7B-Qwen2" in text
    assert text.count("scan-net.org") == 1  # once, however many files of it are missing
    assert text.count("scanqa_train_llava_style.json") == 1


def test_what_is_there_is_not_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("ross3d-7b")
    before = {each.place for each in missing(recipe)}
    (tmp_path / "models/LLaVA-Video-7B-Qwen2").mkdir(parents=True)
    (tmp_path / "models/LLaVA-Video-7B-Qwen2/config.json").write_text("{}")
    (tmp_path / "models/ross-denoiser").mkdir()
    (tmp_path / "data/scannet/posed_images").mkdir(parents=True)
    (tmp_path / "data/processed/some/where").mkdir(parents=True)
    (tmp_path / "data/processed/some/where/sqa3d_test_llava_style.json").write_text("[]")
    assert before - {each.place for each in missing(recipe)} == {
        "models/LLaVA-Video-7B-Qwen2",
        "models/ross-denoiser",
        "data/scannet/posed_images",
        "data/processed/sqa3d_test_llava_style.json",
    }


def test_a_recipe_that_brings_everything_misses_nothing(tmp_path, monkeypatch):
    pytest.importorskip("embreex")
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    assert missing(load_recipe("stereopsis-tiny")) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_every_base_and_teacher_of_a_shipped_recipe_can_be_had_somewhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for each in missing(load_recipe(name)):
        if each.key.startswith(("model", "teachers", "denoiser")):
            assert each.download is not None, json.dumps([each.key, each.place])


def test_downloads_have_links_and_licences():
    for each in (*DOWNLOADS, SCANNET):
        assert "://" in each.link
        assert each.licence
    assert download_of("/a/b/models/FLUX.1-dev/vae/").name.startswith("FLUX.1")
    assert download_of("models/of-mine") is None
