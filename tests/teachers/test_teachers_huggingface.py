"""Vision models of every family, tiny and random, saved and loaded by path as a user's would be."""

import json

import pytest
import torch
import transformers

from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.features import TeacherViews
from stereopsis.teachers.huggingface import HuggingFaceTeacher, PictureInput, load_huggingface_teacher
from stereopsis.teachers.patch_grid import SourceOptions, pooled

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
GRID = {**SHAPE, "image_size": 32, "patch_size": 8}
TEXT = {**SHAPE, "vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
PROCESSOR = {
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "size": {"shortest_edge": 36},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_processor_type": "ViTImageProcessor",
}


def _siglip(cls, config, vision, **more):
    return cls(config(text_config={**TEXT, "pad_token_id": 1}, vision_config=vision, **more))


FAMILIES = {
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**GRID)),
    "dinov2_with_registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**GRID, num_register_tokens=4)
    ),
    "dinov3_vit": lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**GRID, num_register_tokens=3)),
    "siglip": lambda: _siglip(transformers.SiglipModel, transformers.SiglipConfig, GRID),
    "siglip_vision_model": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**GRID)),
    "siglip2": lambda: _siglip(
        transformers.Siglip2Model, transformers.Siglip2Config, {**SHAPE, "num_patches": 16, "patch_size": 8}
    ),
    "vit_mae": lambda: transformers.ViTMAEModel(transformers.ViTMAEConfig(**GRID)),
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=GRID, projection_dim=16)
    ),
    "clip_vision_model": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**GRID)),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**GRID)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One saved model of each family, with a processor file."""
    made = {}
    for name, build in FAMILIES.items():
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(name)
        build().eval().save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        made[name] = folder
    return made


def views_of(images, rows=4, cols=4):
    number, _, height, width = images.shape
    return TeacherViews(
        images=images,
        points=torch.zeros(number, height, width, 3),
        points_valid=torch.zeros(number, height, width, dtype=torch.bool),
        T_aligned_camera=torch.eye(4).expand(number, 4, 4),
        rows=rows,
        cols=cols,
        names=tuple(f"v{i}" for i in range(number)),
        scene_id="scene",
    )


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def towers_own_answer(folder, images):
    """The whole model's patch tokens, by its own classes and hand-made inputs."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    mean, std = (torch.tensor(PROCESSOR[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    pixels = (images.float() / 255 - mean) / std
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        if config.model_type == "siglip2":
            from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

            patches = torch.stack([torch.from_numpy(convert_image_to_patches(p.numpy(), 8)) for p in pixels])
            tokens = tower(patches, torch.ones(3, 16), torch.tensor([[4, 4]] * 3)).last_hidden_state
        elif config.model_type == "vit_mae":
            model.config.mask_ratio = 0.0
            output = model(pixels)  # shuffled by its own noise: put back by its own indices
            shuffled = output.last_hidden_state[:, 1:]
            tokens = shuffled.gather(1, output.ids_restore[..., None].expand(-1, -1, 32))
        else:
            tokens = tower(pixels).last_hidden_state
    return tokens[:, -16:].unflatten(1, (4, 4))


@pytest.mark.parametrize("family", FAMILIES)
def test_patch_tokens_are_the_models_own(family, folders, images):
    teacher = load_feature_teacher(f"hf:{folders[family]}")
    assert (teacher.channels, teacher.size, teacher.patch) == (32, 32, 8)
    result = teacher.encode(views_of(images))
    assert result.valid.all()
    assert result.features.shape == (3, 4, 4, 32)
    torch.testing.assert_close(result.features, towers_own_answer(folders[family], images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_patch_changes_its_own_cell_only_where_nothing_is_mixed(family, folders, images):
    teacher = load_huggingface_teacher(f"{folders[family]}@0")  # the embedding: before any attention
    base = teacher.encode(views_of(images)).features
    for row, col in [(0, 0), (1, 2), (3, 1)]:
        changed = images.clone()
        changed[1, :, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] ^= 255
        moved = (teacher.encode(views_of(changed)).features - base).abs().amax(dim=-1) > 1e-4
        expected = torch.zeros(3, 4, 4, dtype=torch.bool)
        expected[1, row, col] = True
        assert torch.equal(moved, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_stays_within_a_view_and_chunks_change_nothing(family, folders, images):
    teacher = load_huggingface_teacher(str(folders[family]))
    whole = teacher.encode(views_of(images)).features
    teacher.chunk = 2
    torch.testing.assert_close(teacher.encode(views_of(images)).features, whole, atol=1e-5, rtol=1e-5)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(teacher.encode(views_of(images[order])).features, whole[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "vit_mae"])
def test_another_input_size_gives_another_grid(family, folders, images):
    teacher = load_huggingface_teacher(f"{folders[family]}@size=48")
    patches = teacher.patches(views_of(images))
    assert patches.shape == (3, 6, 6, 32)
    torch.testing.assert_close(teacher.encode(views_of(images, 3, 3)).features, pooled(patches, 3, 3))


def test_mae_takes_another_size_in_order(folders, images):
    teacher = load_huggingface_teacher(f"{folders['vit_mae']}@0,size=48")
    big = images.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)  # resizing 96 -> 48 keeps patches apart
    base = teacher.patches(views_of(big))
    changed = big.clone()
    changed[0, :, 64:80, 32:48] ^= 255
    moved = (teacher.patches(views_of(changed)) - base).abs().amax(dim=-1)
    assert moved[0].argmax() == 4 * 6 + 2


def test_views_are_resized_as_a_whole_not_cropped(folders):
    teacher = load_huggingface_teacher(f"{folders['dinov2']}@0")
    wide = torch.full((1, 3, 32, 64), 100, dtype=torch.uint8)
    base = teacher.encode(views_of(wide)).features
    wide[..., :8] = 250  # the outermost eighth would fall to a centre crop
    moved = (teacher.encode(views_of(wide)).features - base).abs().amax(dim=-1)
    assert (moved[0, :, 0] > 1e-3).all()
    assert (moved[0, :, 2:] < 1e-4).all()


def test_layers_count_from_the_embedding_and_from_the_end(folders, images):
    folder, views = folders["dinov2"], views_of(images)
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    mean, std = (torch.tensor(PROCESSOR[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    with torch.no_grad():
        states = model((images.float() / 255 - mean) / std, output_hidden_states=True).hidden_states
    for layer, index in [(1, 1), (3, 3), (-1, 3), (-3, 1)]:
        teacher = load_huggingface_teacher(f"{folder}@{layer}")
        torch.testing.assert_close(teacher.patches(views).flatten(1, 2), states[index][:, 1:], atol=1e-4, rtol=1e-4)
    one, other = (load_huggingface_teacher(f"{folder}@layer={k}").fingerprint for k in (3, -1))
    assert one == other
    with pytest.raises(RecipeError, match=r"has 3 layers, so there is no layer 4; use 1\.\.3"):
        load_huggingface_teacher(f"{folder}@4")


def test_pooling_to_14_is_adaptive_average_pooling():
    patches = torch.rand(2, 28, 37, 5)
    cells = pooled(patches, 14, 14)
    for row, col in [(0, 0), (13, 13), (5, 7)]:
        first, last = col * 37 // 14, -(-(col + 1) * 37 // 14)
        expected = patches[:, 2 * row : 2 * row + 2, first:last].mean(dim=(1, 2))
        torch.testing.assert_close(cells[:, row, col], expected)


def test_fingerprint_tells_weights_and_preprocessing_apart(folders):
    folder = str(folders["dinov2"])
    base = load_huggingface_teacher(folder)
    assert load_huggingface_teacher(folder).fingerprint == base.fingerprint
    options = [f"{folder}@2", f"{folder}@size=48", str(folders["vit"])]
    assert len({base.fingerprint, *(load_huggingface_teacher(option).fingerprint for option in options)}) == 4
    picture = PictureInput.of({**PROCESSOR, "image_mean": [0.4, 0.5, 0.5]}, "x")
    assert HuggingFaceTeacher(base.module, picture, name=base.name).fingerprint != base.fingerprint
    nudged = load_huggingface_teacher(folder)
    nudged.module.get_parameter("layernorm.bias").data[0] += 1e-3
    assert nudged.fingerprint != base.fingerprint


def test_features_may_enter_a_backward_pass_and_never_reach_the_teacher(folders, images):
    teacher = load_huggingface_teacher(str(folders["dinov3_vit"]))
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    features = teacher.encode(views_of(images)).features
    student = torch.zeros_like(features, requires_grad=True)
    (student - features).square().sum().backward()
    assert torch.equal(student.grad, -2 * features)


def test_siglip_takes_what_its_patches_cover():
    """384 / 14 leaves 6 px: 378 px are 27 patches exactly, with the same position embedding."""
    config = transformers.SiglipVisionConfig(**{**SHAPE, "num_hidden_layers": 1, "image_size": 34, "patch_size": 8})
    teacher = HuggingFaceTeacher(transformers.SiglipVisionModel(config), PictureInput.of(PROCESSOR, "x"))
    assert teacher.size == 32
    own = {**PROCESSOR, "do_center_crop": False, "size": {"height": 34, "width": 34}}
    assert HuggingFaceTeacher(transformers.SiglipVisionModel(config), PictureInput.of(own, "x")).size == 32


def test_models_without_a_patch_grid_are_refused(tmp_path, folders, images):
    class TwoTokensMore(transformers.Dinov2Model):
        def forward(self, pixel_values, **kwargs):
            output = super().forward(pixel_values, **kwargs)
            output.last_hidden_state = torch.cat([output.last_hidden_state, output.last_hidden_state[:, :2]], dim=1)
            return output

    odd = HuggingFaceTeacher(TwoTokensMore(transformers.Dinov2Config(**GRID)), PictureInput.of(PROCESSOR, "x"))
    with pytest.raises(RecipeError, match=r"gave 19 tokens for 16 patches \(32 px / 8\); expected 16 or.*17 \(0 reg"):
        odd.encode(views_of(images))
    convolutional = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_hidden_layers=4)
    transformers.ConvNextModel(convolutional).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    with pytest.raises(RecipeError, match=r"'convnext' whose config has no hidden_size"):
        load_huggingface_teacher(str(tmp_path))
    with pytest.raises(RecipeError, match=r"patches of 8 px, so its input cannot be 50 px; use size=48 or size=56"):
        load_huggingface_teacher(f"{folders['dinov2']}@size=50")


def test_incomplete_folders_are_refused(tmp_path, folders):
    with pytest.raises(CheckpointError, match=r"no folder '/nowhere/at/all' to load a vision model from"):
        load_huggingface_teacher("/nowhere/at/all")
    FAMILIES["dinov2"]().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        load_huggingface_teacher(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="should give image_mean and image_std"):
        load_huggingface_teacher(str(tmp_path))
    from safetensors.torch import load_file, save_file

    state = load_file(folders["dinov2"] / "model.safetensors")
    state.pop("embeddings.cls_token")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    with pytest.raises(CheckpointError, match=r"lacks 1 weight\(s\) of Dinov2Model, the first being '.*cls_token'"):
        load_huggingface_teacher(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", ("org/name", None, None)),
        ("org/name@-2", ("org/name", -2, None)),
        ("org/name@layer=3,size=448", ("org/name", 3, 448)),
        ("org/name@7, size=28", ("org/name", 7, 28)),
    ],
)
def test_options_are_read(text, expected):
    options = SourceOptions.read(text)
    assert (options.source, options.layer, options.size) == expected


def test_a_path_may_hold_an_at_sign(tmp_path):
    (tmp_path / "me@home").mkdir()
    assert SourceOptions.read(f"{tmp_path}/me@home").source == f"{tmp_path}/me@home"
    assert SourceOptions.read(f"{tmp_path}/me@home@-1").layer == -1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a@sise=3", r"unknown option 'sise' in 'a@sise=3' \(did you mean 'size'\?\)"),
        ("a@last", r"cannot read 'last'"),
        ("a@size=0", r"cannot read 'size=0'"),
        ("a@1,2", r"cannot read '2'"),
    ],
)
def test_bad_options_are_refused(text, message):
    with pytest.raises(RecipeError, match=message):
        SourceOptions.read(text)


def test_specs_without_a_source_list_all_kinds():
    with pytest.raises(RecipeError, match=r"'hf' should read 'hf:PATH_OR_ID\[@OPTIONS\]'; use one of: 'point_map'"):
        load_feature_teacher("hf")
    with pytest.raises(RecipeError, match=r"unknown feature teacher 'vgt:x' \(did you mean 'vggt'\?\)"):
        load_feature_teacher("vgt:x")


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_gives_the_same_features(family, folders, images):
    here, there = (load_feature_teacher(f"hf:{folders[family]}", device) for device in ("cpu", "cuda"))
    assert here.fingerprint == there.fingerprint
    a, b = (teacher.encode(views_of(images)).features for teacher in (here, there))
    assert not b.is_cuda  # on the device of the views
    torch.testing.assert_close(a, b, atol=5e-3, rtol=5e-3)
