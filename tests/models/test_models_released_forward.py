"""Converted official weights compute what the released models compute: against a second, plain implementation."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from official import qwen_tokenizer, write_official
from released_forward import ReleasedForward, Sizes, random_release
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.data.views import Views, cell_coordinates, cells_in_boxes
from stereopsis.errors import CheckpointError
from stereopsis.model_files import HEADS_FILE
from stereopsis.models.inference import EnteredScene
from stereopsis.models.released import convert_from_released
from stereopsis.models.storage import load_model
from stereopsis.objectives import CrossView, Denoiser, DenoiserConfig, GroundingLoss
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.packs.build import TOKEN_SHARE

VIEWS = 3
SPOKEN = ("where is the chair? Answer the question simply.", "on the table")
POINTED = ("Identify the object according to the following description.\nthe red lamp", (1, 2))
NOWHERE = ("Identify the object according to the following description.\nthe blue bed", ())
DESCRIBED = ("Given an object located at <coord> , describe the object in detail.", "sos a red lamp eos")
SPOT = (1.26, -0.44, 0.71)
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
BEHIND = "<|im_end|>\n<|im_start|>assistant\n"
INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the video "
    "and answer the following questions."
)


def official(folder: Path, tensors: dict[str, torch.Tensor], sizes: Sizes, words: PreTrainedTokenizerFast) -> Path:
    """The release's folder: weights, config.json, tokenizer, and the tower's own config.json beside it."""
    config = {
        "model_type": "llava_qwen",
        "hidden_size": sizes.width,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": 4096,
        "rope_theta": sizes.theta,
        "rope_scaling": None,
        "rms_norm_eps": sizes.epsilon,
        "hidden_act": "silu",
        "vocab_size": sizes.rows,
        "tie_word_embeddings": False,
        "mm_spatial_pool_stride": None,
        "mm_spatial_pool_mode": "bilinear",
        "mm_newline_position": "grid",
        "world_position_embedding_type": "avg-discrete-sin3d",
        "object_feature_type": "patch14-pe",
        "ground_head_type": "infonce",
        "ground_head_temperature": 0.07,
        "voxel_size": 0.1,
        "min_xyz_range": [-15, -15, -5],
        "max_xyz_range": [15, 15, 5],
        "ground_token_ids": words.convert_tokens_to_ids(["<ground>"]),
        "coord_token_ids": words.convert_tokens_to_ids(["<coord>"]),
    }
    tower = {"num_attention_heads": sizes.tower_heads, "image_size": sizes.image}
    if sizes.spare_layer:
        tower["num_hidden_layers"] = sizes.tower_layers + 1
    return write_official(folder, tensors, config, tower, words, shards=2)


def seen_scene(sizes: Sizes, seed: int = 0) -> SimpleNamespace:
    """Random pictures, the 3D point of every pixel on a slanted wall, and boxes; the last box is seen by no view."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=draw)

    rows, cols = torch.meshgrid(torch.arange(sizes.image), torch.arange(sizes.image), indexing="ij")
    slopes = uniform(VIEWS, 2, 3) * 0.2 - 0.1
    points = (uniform(VIEWS, 1, 1, 3) * 4 - 2) + torch.stack([rows, cols], -1).float() @ slopes[:, None]
    points = points + 0.05 * uniform(VIEWS, sizes.image, sizes.image, 3)
    picked = points.flatten(0, 2)[torch.randint(0, VIEWS * sizes.image**2, (5,), generator=draw)]
    boxes = torch.cat([picked, 0.8 + uniform(5, 3)], dim=1)
    return SimpleNamespace(
        images=torch.randint(0, 256, (VIEWS, 3, sizes.image, sizes.image), generator=draw, dtype=torch.uint8),
        points=points,
        boxes=torch.cat([boxes, torch.tensor([[9.0, 9.0, 2.0, 0.5, 0.5, 0.5]])]),
    )


def pack_of(scene: SimpleNamespace, sizes: Sizes, *talk: Conversation) -> ScenePack:
    """The scene as the package reads it, from pictures and pixels' points."""
    views = Views(
        names=tuple(map(str, range(VIEWS))),
        images=scene.images,
        points=scene.points,
        points_valid=torch.ones(scene.points.shape[:3], dtype=torch.bool),
        cameras=torch.eye(4).repeat(VIEWS, 1, 1),
        intrinsics=torch.eye(3).repeat(VIEWS, 1, 1),
    )
    cells, boxes = cell_coordinates(views, sizes.tokens, sizes.tokens), scene.boxes.numpy()
    return ScenePack(
        scene_id="scene",
        frame_names=views.names,
        images=views.images,
        coordinates=cells.coordinates,
        coordinates_valid=cells.valid,
        cameras=views.cameras,
        intrinsics=views.intrinsics,
        proposals=SceneProposals(
            boxes=scene.boxes,
            cells=cells_in_boxes(views, boxes, sizes.side, sizes.side),
            token_cells=cells_in_boxes(views, boxes, sizes.tokens, sizes.tokens, fraction=TOKEN_SHARE),
        ),
        conversations=talk,
    )


TALK = (
    Conversation(id="spoken", task="scanqa", prompt=SPOKEN[0], answer=SPOKEN[1]),
    Conversation(id="described", task="scan2cap", prompt=DESCRIBED[0], answer=DESCRIBED[1], point=SPOT),
    Conversation(id="pointed", task="scanrefer", prompt=POINTED[0], answer="<ground>", positives=POINTED[1]),
    Conversation(id="nowhere", task="multi3drefer", prompt=NOWHERE[0], answer="<ground>"),
)


class Reference:
    """One conversation through `ReleasedForward`, in the released prompt."""

    def __init__(self, tensors: dict[str, torch.Tensor], sizes: Sizes, words: PreTrainedTokenizerFast) -> None:
        self.forward, self.words, self.sizes = ReleasedForward(tensors, sizes), words, sizes

    def __call__(self, scene: SimpleNamespace, talk: Conversation, *, aligned: bool = False) -> SimpleNamespace:
        """Everything that is compared; ``aligned``: 3DRS's candidates."""
        text = SYSTEM, f"\n{INSTRUCTION}\n{talk.prompt}{BEHIND}", f"{talk.answer}<|im_end|>\n"
        before, question, answer = (self.words(part, add_special_tokens=False)["input_ids"] for part in text)
        behind = [*question, *answer]
        coordinate = self.words.convert_tokens_to_ids("<coord>")
        points = {place: torch.tensor(talk.point) for place, token in enumerate(behind) if token == coordinate}
        sequence = self.forward.visual_sequence(scene.images, scene.points)
        row = self.forward.row(before, sequence, behind, points)
        hidden = self.forward.decode(row)
        start = len(before) + len(sequence)
        said = start + len(question)
        last = hidden[len(before) : start]
        found = SimpleNamespace(row=row, hidden=hidden, sequence=sequence, last=last, prefix=len(before))
        if talk.grounds:
            objects = self.forward.object_features(scene.images, scene.points, scene.boxes, last if aligned else None)
            found.scores = self.forward.scores(hidden[said], objects)
            found.loss = self.forward.grounding_loss(found.scores, talk.positives)
            found.length = said + 1
        else:
            found.logits = self.forward.logits(hidden[said - 1 : said - 1 + len(answer) - 1])
            found.length = said + len(answer) - 2
        return found


@pytest.fixture(scope="module", params=["video_3d_llm", "3drs", "spare tower layer"])
def released(request, tmp_path_factory, in_double) -> SimpleNamespace:
    """A random release, its reference, and what `convert` made of it; in float64."""
    sizes = Sizes(spare_layer=request.param == "spare tower layer")
    tensors, words = random_release(sizes), qwen_tokenizer()
    if request.param == "3drs":
        draw = torch.Generator().manual_seed(4)
        for layer, (out, size) in {0: (2 * sizes.width, sizes.width), 2: (20, 2 * sizes.width)}.items():
            tensors[f"model.proj_3d.{layer}.weight"] = torch.randn(out, size, generator=draw)
            tensors[f"model.proj_3d.{layer}.bias"] = torch.randn(out, generator=draw)
    folder = tmp_path_factory.mktemp("released")
    told = convert_from_released(official(folder / "official", tensors, sizes, words), folder / "ours")
    model = load_model(folder / "ours", dtype=torch.float64)
    in_double(model.backbone)
    return SimpleNamespace(
        model=model,
        folder=folder / "ours",
        told=told,
        sizes=sizes,
        reference=Reference(tensors, sizes, words),
        aligned=request.param == "3drs",
    )


def run(model, batch):
    return model.outputs(batch, (), torch.Generator().manual_seed(0), layers=(0,))


@torch.no_grad()
def test_row_and_hidden_states_are_the_released_ones(released):
    """Views with their 3D encodings, newlines, prompt, <coord>: every embedding and every last hidden state."""
    model, scene = released.model, seen_scene(released.sizes)
    for talk in TALK:
        expected = released.reference(scene, talk, aligned=released.aligned)
        batch = model.collator()([pack_of(scene, released.sizes, talk)])
        assert batch.input_ids.shape[1] >= expected.length
        decoded = model.adapter.decode(
            model.embed(batch),
            model.add_positions(model.visual_inputs(batch).tokens, batch),
            attention_mask=model.attention(batch, torch.float64),
            position_ids=batch.position_ids,
            layers=(0,),
        )
        kept = slice(0, expected.length)
        torch.testing.assert_close(decoded.layers[0][0, kept], expected.row[kept], rtol=0, atol=1e-9)
        torch.testing.assert_close(decoded.hidden[0, kept], expected.hidden[kept], rtol=0, atol=1e-9)


@torch.no_grad()
def test_words_and_pointing_are_the_released_ones(released):
    """All conversations packed behind one prefix, against the reference one by one: logits, scores, InfoNCE."""
    model, scene = released.model, seen_scene(released.sizes, seed=1)
    batch = model.collator()([pack_of(scene, released.sizes, *TALK)])
    outputs = run(model, batch)
    expected = [released.reference(scene, talk, aligned=released.aligned) for talk in TALK]
    count = released.sizes.tokens
    last = expected[0].last.view(VIEWS, count, count + 1, -1)[:, :, :count]
    torch.testing.assert_close(outputs.visual, last, rtol=0, atol=1e-9)
    logits = torch.cat([one.logits for one in expected[:2]])
    torch.testing.assert_close(outputs.text_logits, logits, rtol=0, atol=1e-8)
    scores = torch.stack([one.scores for one in expected[2:]])
    assert scores.std() > 0.1
    torch.testing.assert_close(outputs.grounding.logits, scores, rtol=0, atol=1e-8)
    loss = GroundingLoss().loss(outputs, batch, torch.Generator())
    torch.testing.assert_close(loss.sum, expected[2].loss + expected[3].loss, rtol=0, atol=1e-8)


@torch.no_grad()
def test_an_entered_scene_points_as_the_released_model(released):
    """Behind the cached prefix, too."""
    scene = seen_scene(released.sizes, seed=2)
    found = EnteredScene(released.model, pack_of(scene, released.sizes)).score_proposals([TALK[2]])[0]
    expected = released.reference(scene, TALK[2], aligned=released.aligned).scores * 0.07
    torch.testing.assert_close(found.cosines, expected[:-1].to(found.cosines.dtype), rtol=0, atol=1e-6)
    assert found.zero_cosine == pytest.approx(float(expected[-1]), abs=1e-6)


@torch.no_grad()
def test_in_single_precision_a_hundred_thousandth(released):
    """As models are opened by default."""
    model, scene = load_model(released.folder), seen_scene(released.sizes, seed=3)
    outputs = run(model, model.collator()([pack_of(scene, released.sizes, *TALK)]))
    expected = [released.reference(scene, talk, aligned=released.aligned) for talk in TALK]
    logits = torch.cat([one.logits for one in expected[:2]]).float()
    torch.testing.assert_close(outputs.text_logits, logits, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))
    scores = torch.stack([one.scores for one in expected[2:]]).float()
    torch.testing.assert_close(outputs.grounding.logits * 0.07, scores * 0.07, rtol=0, atol=1e-5)


@torch.no_grad()
def test_hidden_views_are_the_released_ones(tmp_path, in_double):
    """Ross3D's mask token, in the views that the objective has drawn, before the encoding."""
    sizes, words = Sizes(), qwen_tokenizer()
    tensors = random_release(sizes) | {"model.mask_token": torch.randn(sizes.width)}
    told = convert_from_released(official(tmp_path / "official", tensors, sizes, words), tmp_path / "ours")
    assert told.kind == "ross3d"
    model = load_model(tmp_path / "ours", dtype=torch.float64)
    in_double(model.backbone)
    denoiser = Denoiser(
        DenoiserConfig(condition_dim=sizes.width, channels=4, width=16, depth=1, heads=2, view_grid=(2, 2))
    )
    hide = CrossView(denoiser, ratio=0.5, dim=sizes.width, conditioning="released")
    hide.mask_token.data = load_file(tmp_path / "ours" / HEADS_FILE)["members.cross_view.mask_token"].double()
    model.objectives = ObjectiveSet({"cross_view": hide}, denoiser)
    scene = seen_scene(sizes)
    pack = pack_of(scene, sizes, TALK[0]).replace(view_targets={"view_latents": torch.zeros(VIEWS, 2, 2, 4)})
    outputs = model.outputs(model.collator()([pack]), ("cross_view",), torch.Generator().manual_seed(0), layers=(0,))
    hidden = tuple(outputs.hidden.nonzero().flatten().tolist())
    assert 0 < len(hidden) < VIEWS
    count = sizes.tokens
    expected = ReleasedForward(tensors, sizes).visual_sequence(scene.images, scene.points, hidden)
    expected = expected.view(VIEWS, count, count + 1, -1)[:, :, :count]
    torch.testing.assert_close(outputs.at(0), expected, rtol=0, atol=1e-9)


def test_what_the_tower_does_not_use_is_left_out_and_told(released):
    """The releases keep the tower without its last layer; a file that has it is read alike."""
    spare = [name for name in released.told.dropped if ".encoder.layers." in name]
    assert len(spare) == (16 if released.sizes.spare_layer else 0)
    assert released.model.backbone.config.vision_config.num_hidden_layers == released.sizes.tower_layers


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"world_position_embedding_type": "sample9-mlp"}, "world_position_embedding_type"),
        ({"object_feature_type": "patch27-pe"}, "object_feature_type"),
        ({"ground_head_type": "score"}, "ground_head_type"),
        ({"voxel_size": 0.2}, "voxel_size"),
        ({"min_xyz_range": [-10, -10, -5]}, "min_xyz_range"),
        ({"ground_token_ids": [7]}, "<ground>"),
    ],
)
def test_settings_of_another_variant_are_refused(tmp_path, change, match):
    """The official code has switches that change the forward pass; weights trained so are not misread in silence."""
    source = official(tmp_path / "official", random_release(Sizes()), Sizes(), qwen_tokenizer())
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=match):
        convert_from_released(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
