"""Recipes: what is accepted, what is refused, and what the refusal says."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.errors import RecipeError
from stereopsis.training.recipe import ENGINE_FOLDER, find_recipe, load_recipe, parse_recipe

FILES = (Path(__file__).resolve().parents[2] / "recipes").rglob("*.yaml")
RECIPES = sorted(path for path in FILES if path.parent.name != ENGINE_FOLDER)
TEXT = {"name": "x", "objectives": {"text": {}}}


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    return write(tmp_path, "objectives:\n  text: {}\n")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_under_its_own_name(path: Path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    written = yaml.safe_load(path.read_text())
    if path.parent.name == "recipes":
        assert recipe == load_recipe(path.stem)
    if "extends" not in written:
        assert set(written["objectives"]) == set(recipe.objectives.active())


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.parent.name == "ablations"], ids=lambda path: path.stem
)
def test_an_ablation_differs_from_what_it_extends_by_one_line(path: Path):
    written = yaml.safe_load(path.read_text())
    assert len(written) <= 2
    assert "extends" in written
    base, recipe = load_recipe(written["extends"]), load_recipe(path)
    assert (recipe.model_copy(update={"name": base.name}) == base) == (len(written) == 1)


def test_there_are_shipped_recipes():
    assert {"baseline-tiny", "blind-tiny", "stereopsis-tiny", "capture-tiny"} <= {path.stem for path in RECIPES}


def test_the_blind_and_the_full_recipe_differ_from_the_baseline_only_where_their_names_say():
    baseline, blind, full = (load_recipe(f"{name}-tiny") for name in ("baseline", "blind", "stereopsis"))
    assert blind.model_copy(update={"name": baseline.name, "model": baseline.model}) == baseline
    same = {"name": baseline.name, "objectives": baseline.objectives, "denoiser": baseline.denoiser}
    assert full.model_copy(update=same) == baseline
    assert blind.model.blind
    assert not baseline.model.blind


@pytest.mark.parametrize(
    ("content", "place", "nearest"),
    [
        ({"trainig": {"steps": 5}}, "trainig", "training"),
        ({"training": {"stepps": 5}}, "training.stepps", "steps"),
        ({"model": {"position": "none"}}, "model.position", "positions"),
        ({"data": {"sources": [{"rooms": 2}, {"room": 3}]}}, "data.sources.1.room", "rooms"),
        ({"objectives": {"text": {}, "crossview": {}}}, "objectives.crossview", "cross_view"),
        ({"objectives": {"cross_view": {"ration": 0.5}}}, "objectives.cross_view.ration", "ratio"),
        ({"evaluation": {"proposal": "detector"}}, "evaluation.proposal", "proposals"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_one(content, place, nearest):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**TEXT, **content})
    assert f"unknown key '{place}' (did you mean '{nearest}'?)" in str(caught.value)


def test_an_unknown_key_that_resembles_nothing_lists_what_is_known():
    with pytest.raises(RecipeError, match=r"unknown key 'denoiser.zzz' \(known: depth, diffusion, dropout, heads"):
        parse_recipe({**TEXT, "denoiser": {"zzz": 1}})


@pytest.mark.parametrize(
    ("content", "place", "found"),
    [
        ({"training": {"steps": "many"}}, "training.steps", "'many'"),
        ({"training": {"steps": 0}}, "training.steps", "0"),
        ({"training": {"steps": 2.5}}, "training.steps", "2.5"),
        ({"training": {"schedule": "cosinus"}}, "training.schedule", "'cosinus'"),
        ({"training": {"learning_rate": -1e-3}}, "training.learning_rate", "-0.001"),
        ({"training": {"log_every": 0}}, "training.log_every", "0"),
        ({"training": {"save_every": -1}}, "training.save_every", "-1"),
        ({"training": {"keep": 0}}, "training.keep", "0"),
        ({"teachers": {"view_size": 0}}, "teachers.view_size", "0"),
        ({"data": {"sources": []}}, "data.sources", "[]"),
        ({"data": {"sources": [{"rooms": 1, "offset": -1}]}}, "data.sources.0.offset", "-1"),
        ({"model": {"view_grid": [3, 0]}}, "model.view_grid.1", "0"),
        ({"training": {"warmup": 1.0}}, "training.warmup", "1.0"),
        ({"training": {"precision": "fp16"}}, "training.precision", "'fp16'"),
        ({"model": {"positions": "lidar"}}, "model.positions", "'lidar'"),
        ({"model": {"view_grid": [3]}}, "model.view_grid", ""),
        ({"data": {"tasks": ["sqa3d", "vqa"]}}, "data.tasks.1", "'vqa'"),
        ({"data": {"sources": [{"rooms": 0}]}}, "data.sources.0.rooms", "0"),
        ({"objectives": {"cross_view": {"ratio": 1.0}}}, "objectives.cross_view.ratio", "1.0"),
        ({"objectives": {"cross_view": {"conditioning": "magic"}}}, "objectives.cross_view.conditioning", "'magic'"),
        ({"objectives": {"cross_view": {"repeats": 0}}}, "objectives.cross_view.repeats", "0"),
        ({"objectives": {"birds_eye": {"repeats": 0}}}, "objectives.birds_eye.repeats", "0"),
        ({"objectives": {"cross_view": {"latents": "mode"}}}, "objectives.cross_view.latents", "'mode'"),
        ({"objectives": {"birds_eye": {"grounding": "only"}}}, "objectives.birds_eye.grounding", "'only'"),
        ({"denoiser": {"diffusion": "edm"}}, "denoiser.diffusion", "'edm'"),
        ({"denoiser": {"dropout": 1.0}}, "denoiser.dropout", "1.0"),
        ({"denoiser": {"times": "logit_normal"}}, "denoiser", ""),
        ({"objectives": {"alignment": {"distance": "l1"}}}, "objectives.alignment.distance", "'l1'"),
        ({"objectives": {"text": {"every": 0}}}, "objectives.text.every", "0"),
        ({"seed": "x"}, "seed", "'x'"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_what_was_found(content, place, found):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**TEXT, **content})
    assert f"{place}" in str(caught.value)
    assert f"found {found}" in str(caught.value)


@pytest.mark.parametrize(("width", "heads"), [(30, 3), (32, 5)])
def test_a_denoiser_that_cannot_be_built_is_refused_here(width, heads):
    with pytest.raises(
        RecipeError, match=rf"denoiser: .*width {width} must be divisible by 4 and by heads \({heads}\)"
    ):
        parse_recipe({**TEXT, "denoiser": {"width": width, "heads": heads}})


def test_every_problem_is_told_at_once():
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**TEXT, "training": {"steps": 0, "stepz": 1}, "seeds": 3})
    for part in ("training.steps", "training.stepz", "'seeds'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("objectives", [{}, None, {"text": None}])
def test_nothing_to_train_is_refused_with_a_remedy(objectives):
    content = {"name": "x"} if objectives is None else {"name": "x", "objectives": objectives}
    with pytest.raises(RecipeError, match=r"no objective is on; .*'text: \{\}'"):
        parse_recipe(content)


@pytest.mark.parametrize("objectives", [{"cross_view": {}}, {"text": {"every": 2}, "alignment": {"every": 3}}])
def test_a_step_on_which_nothing_is_due_is_refused_before_training(objectives):
    with pytest.raises(RecipeError, match="no objective is active on every step; set 'every: 1'"):
        parse_recipe({"name": "x", "objectives": objectives})


@pytest.mark.parametrize("source", [{}, {"rooms": 3, "path": "a"}])
def test_a_source_is_rooms_or_a_path_and_never_both(source):
    with pytest.raises(RecipeError, match=r"data.sources.0: .*exactly one of 'rooms' and 'path'"):
        parse_recipe({**TEXT, "data": {"sources": [source]}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("objectives: [", "not valid YAML"),
        ("- a\n- b\n", "must hold a mapping of sections, found list"),
        ("", "must hold a mapping of sections, found NoneType"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str, words: str):
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(RecipeError, match=r"no recipe 'steropsis-tiny' \(did you mean 'stereopsis-tiny'\?\)"):
        load_recipe("steropsis-tiny")


def test_recipes_are_found_by_path_by_name_and_by_file_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("baseline-tiny").stem == find_recipe("baseline-tiny.yaml").stem == "baseline-tiny"
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "baseline-tiny.yaml").write_text("objectives: {text: {}}\n")
    assert find_recipe("baseline-tiny").resolve() == tmp_path / "recipes" / "baseline-tiny.yaml"


def test_overrides_reach_nested_keys_list_entries_and_sections_that_the_file_lacks(tmp_path: Path):
    path = write(tmp_path, "objectives: {text: {}}\ndata: {sources: [{rooms: 5}, {rooms: 6}]}\n")
    recipe = load_recipe(
        path,
        [
            "training.steps=50",
            "data.sources.1.rooms=7",
            "data.sources.0.split=val",
            "objectives.cross_view.ratio=0.5",
            "objectives.text.weight=2",
            "model.view_grid=[4, 4]",
            "model.blind=true",
            "seed=9",
        ],
    )
    assert (recipe.training.steps, recipe.seed, recipe.model.view_grid, recipe.model.blind) == (50, 9, (4, 4), True)
    assert [(s.rooms, s.split) for s in recipe.data.sources] == [(5, "val"), (7, "train")]
    assert recipe.objectives.cross_view.ratio == 0.5
    assert recipe.objectives.text.weight == 2.0


def test_overrides_replace_whole_lists_and_switch_objectives_off(tmp_path: Path):
    path = write(tmp_path, "objectives: {text: {}, grounding: {}}\n")
    recipe = load_recipe(
        path, ["data.sources=[{path: a, text: false}]", "objectives.text=null", "data.sources.0.path=b=c"]
    )
    assert list(recipe.objectives.active()) == ["grounding"]
    assert recipe.data.sources[0].path == Path("b=c")


def test_the_last_of_two_overrides_wins(minimal: Path):
    assert load_recipe(minimal, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps", "must look like section.key=value"),
        ("=5", "must look like section.key=value"),
        ("training.steps.more=5", "'steps' is a value, not a section"),
        ("data.sources.9.rooms=5", "no entry '9'"),
        ("data.sources.x.rooms=5", "no entry 'x'"),
        ("data.sources.9={rooms: 5}", "no entry '9'"),
        ("data.sources.x={rooms: 5}", "no entry 'x'"),
        ("seed=[1", "not valid YAML"),
        ("training.stepps=5", "unknown key 'training.stepps' (did you mean 'steps'?)"),
        ("training.steps=soon", "training.steps"),
    ],
)
def test_a_bad_override_is_refused_by_name(tmp_path: Path, override: str, words: str):
    path = write(tmp_path, "objectives: {text: {}}\ndata: {sources: [{rooms: 5}]}\ntraining: {steps: 3}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [override])
    assert words in str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_written_recipe_reads_back_as_itself(tmp_path: Path, path: Path):
    recipe = load_recipe(path)
    again = load_recipe(write(tmp_path, recipe.to_yaml()))
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


values = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31),
        "model": st.fixed_dictionaries(
            {"positions": st.sampled_from(["depth", "noisy", "none"]), "instruction": st.text(max_size=20)},
            optional={"view_grid": st.tuples(st.integers(1, 20), st.integers(1, 20)).map(list)},
        ),
        "training": st.fixed_dictionaries(
            {
                "steps": st.integers(1, 10**6),
                "learning_rate": st.floats(1e-9, 1.0),
                "warmup": st.floats(0, 0.99),
                "cache_vision": st.booleans(),
            }
        ),
        "objectives": st.dictionaries(
            st.sampled_from(["text", "grounding", "vanilla", "cross_view", "birds_eye", "alignment"]),
            st.fixed_dictionaries({"weight": st.floats(-10, 10), "every": st.integers(1, 99)}),
        ).map(lambda others: {**others, "text": {}}),
    },
)


@settings(max_examples=25, deadline=None)
@given(values)
def test_any_recipe_survives_being_written_with_every_default_spelled_out(content):
    recipe = parse_recipe({**TEXT, **content})
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10**9), st.floats(1e-12, 1e3))
def test_overrides_hold_exactly_what_was_typed(steps: int, rate: float):
    recipe = load_recipe("baseline-tiny", [f"training.steps={steps}", f"training.learning_rate={rate!r}"])
    assert (recipe.training.steps, recipe.training.learning_rate) == (steps, rate)


def test_coverage_chooses_views_and_its_share_needs_it():
    chosen = parse_recipe({**TEXT, "data": {"selection": "coverage", "coverage": 0.9, "cache": "x"}}).data
    assert chosen.view_options == {"selection": "coverage", "coverage": 0.9, "view_cache": Path("x/views")}
    assert parse_recipe({**TEXT, "data": {"selection": "random"}}).data.view_options == {"selection": "uniform"}
    with pytest.raises(RecipeError, match="'coverage' needs 'selection: coverage', found 'selection: uniform'"):
        parse_recipe({**TEXT, "data": {"coverage": 0.9}})
    for share in (0, 1.1):
        with pytest.raises(RecipeError, match=r"data\.coverage"):
            parse_recipe({**TEXT, "data": {"selection": "coverage", "coverage": share}})
    with pytest.raises(RecipeError, match=r"data\.selection.*'coverage'"):
        parse_recipe({**TEXT, "data": {"selection": "cover"}})


ABLATIONS = [path for path in RECIPES if path.parent.name == "ablations" and path.stem.startswith("ross3d-")]


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_row_of_the_ablation_differs_from_the_whole_in_one_line(path: Path):
    recipe, whole = load_recipe(path), load_recipe("ross3d-tiny")
    assert recipe == load_recipe(path.stem)  # found by its name, too
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("#", "extends:"))]
    assert len(lines) == (0 if path.stem == "ross3d-both" else 1)
    assert recipe.model_copy(update={"name": whole.name, "objectives": whole.objectives}) == whole


def test_the_ablation_s_rows():
    on = {path.stem.removeprefix("ross3d-"): [*load_recipe(path).objectives.active()][2:] for path in ABLATIONS}
    assert on == {
        "baseline": [],
        "vanilla": ["vanilla"],
        "cross-view": ["cross_view"],
        "birds-eye": ["birds_eye"],
        "both": ["cross_view", "birds_eye"],
    }


def test_the_published_settings_of_ross3d():
    recipe = load_recipe("ross3d-7b")
    assert (recipe.data.views, recipe.model.view_grid) == (32, (14, 14))
    assert (recipe.denoiser.width, recipe.denoiser.depth, recipe.denoiser.heads) == (1024, 3, 16)
    cross_view = recipe.objectives.cross_view
    assert (cross_view.ratio, cross_view.every, cross_view.conditioning) == (0.25, 4, "released")
    assert (recipe.teachers.view_size, recipe.teachers.birdseye_size) == (216, 432)
    training = recipe.training
    assert (training.optimizer, training.learning_rate, training.warmup) == ("adamw", 1e-5, 0.03)
    assert training.step_scenes(8) * recipe.data.conversations == 256
    assert training.step_scenes(1) == training.step_scenes(8)
    assert training.steps == -(-223_128 // 256)


def family(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_a_recipe_extends_another_key_by_key(tmp_path):
    child = family(
        tmp_path,
        child="extends: parent\nobjectives: {cross_view: {ratio: 0.5}}\ndata: {sources: [{rooms: 2}]}\n",
        parent="extends: grandparent.yaml\nname: parent\nobjectives: {cross_view: {every: 2}}\n",
        grandparent="seed: 3\nobjectives: {text: {}, cross_view: {repeats: 2}}\ndata: {views: 5}\n",
    )
    recipe = load_recipe(child, ["training.steps=7"])
    assert recipe == parse_recipe(
        {
            "name": "child",
            "seed": 3,
            "objectives": {"text": {}, "cross_view": {"ratio": 0.5, "every": 2, "repeats": 2}},
            "data": {"views": 5, "sources": [{"rooms": 2}]},
            "training": {"steps": 7},
        }
    )


def test_null_takes_away_what_is_inherited(tmp_path):
    child = family(
        tmp_path,
        child="extends: parent\nobjectives: {cross_view: null}\ndata: {views: null}\n",
        parent="objectives: {text: {}, cross_view: {}}\ndata: {views: 5}\n",
    )
    recipe = load_recipe(child)
    assert list(recipe.objectives.active()) == ["text"]
    assert recipe.data.views == parse_recipe(TEXT).data.views


def test_null_for_a_misspelt_key_is_still_an_unknown_key(tmp_path):
    child = family(
        tmp_path, child="extends: parent\nobjectives: {crossview: null}\n", parent="objectives: {text: {}}\n"
    )
    with pytest.raises(RecipeError, match=r"unknown key 'objectives.crossview' \(did you mean 'cross_view'\?\)"):
        load_recipe(child)


def test_recipes_that_extend_each_other_are_refused(tmp_path):
    child = family(tmp_path, a="extends: b\n", b="extends: a\n")
    with pytest.raises(RecipeError, match=r"extend each other: a.yaml -> b.yaml -> a.yaml"):
        load_recipe(child)


@pytest.mark.parametrize(
    ("parent", "reason"), [("ross3d-tyny", "did you mean 'ross3d-tiny'"), ("[a, b]", "one recipe, found")]
)
def test_what_cannot_be_extended_is_named(tmp_path, parent, reason):
    with pytest.raises(RecipeError, match=reason):
        load_recipe(family(tmp_path, child=f"extends: {parent}\n"))


def test_the_semi_supervised_recipe_differs_by_its_mixture_alone():
    whole, half = load_recipe("stereopsis-tiny"), load_recipe("semi-supervised-tiny")
    assert (half.data.text_share, half.data.vision_only) == (0.5, 0.5)
    changes = {"text_share": 1.0, "vision_only": None}
    assert half.model_copy(update={"name": whole.name, "data": half.data.model_copy(update=changes)}) == whole
