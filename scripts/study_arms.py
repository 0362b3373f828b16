"""The arms of the study (scripts/study.py): what each changes, what it is to show, what it is compared with."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        stage: "instrument", "objective" or "control".
        hypothesis: what it tests, in words.
        overrides: of the base recipe.
        against: the arm that it is compared with, seed by seed.
        start: the arm whose finished run of the same seed it starts from; None = the base.
        seeds: how many are wanted.
        priority: lower ones run first.
    """

    stage: str
    hypothesis: str
    overrides: tuple[str, ...]
    against: str | None = None
    start: str | None = None
    seeds: int = 1
    priority: int = 5


def _few(share: float, *overrides: str) -> tuple[str, ...]:
    """Words of a share of the rooms; as many text updates as with all of them."""
    return (f"data.text_share={share}", *overrides)


def _with(share: float, *overrides: str) -> tuple[str, ...]:
    """The same, and beside every room with words one without, for objectives that need none."""
    return _few(share, "data.vision_only=0.5", "training.scenes=8", *overrides)


_INSTRUMENT = "true positions against none, where words are scarce: how much is geometry worth?"
_LOUD = (
    "the encoding of places is drowned: visual tokens differ by 28 (norm), their encodings by 5.5; four times as loud "
    "both are heard"
)
_LONG = "H1: four times as many steps make geometry matter"
ARMS: dict[str, Arm] = {
    "blind-100": Arm(
        stage="instrument",
        hypothesis="what words, boxes and coordinates give away to a model without eyes: places have habits",
        overrides=("model.blind=true",),
        against="none-100",
        priority=2,
    ),
    "none-100": Arm(stage="instrument", hypothesis="words of all rooms, pictures alone", overrides=(), priority=2),
    "depth-100": Arm(
        stage="instrument",
        hypothesis="words of all rooms, true positions: what geometry is worth when labels are plenty",
        overrides=("model.positions=depth",),
        against="none-100",
        priority=2,
    ),
    "aligned-100": Arm(
        stage="instrument",
        hypothesis="pictures alone, but coordinates in the room's own frame, which no picture tells",
        overrides=("data.sources.0.frame=aligned", "evaluation.sources.0.frame=aligned"),
        against="none-100",
        priority=4,
    ),
    "tokens-100": Arm(
        stage="instrument",
        hypothesis="pictures alone, but candidates of the tokens that depth and poses pick (the earlier setting)",
        overrides=("model.object_features=encoder",),
        against="none-100",
        priority=4,
    ),
    "tokens-depth-100": Arm(
        stage="instrument",
        hypothesis="the same with true positions: geometry that candidates have leaked is worth nothing any more",
        overrides=("model.object_features=encoder", "model.positions=depth"),
        against="tokens-100",
        priority=4,
    ),
    "none-10": Arm(stage="instrument", hypothesis=_INSTRUMENT, overrides=_few(0.1), seeds=3, priority=0),
    "depth-10": Arm(
        stage="instrument",
        hypothesis=_INSTRUMENT,
        overrides=_few(0.1, "model.positions=depth"),
        against="none-10",
        seeds=3,
        priority=0,
    ),
    "point_map-10": Arm(
        stage="objective",
        hypothesis="H3: point maps at the last layer, also of the rooms without words",
        overrides=_with(0.1, "objectives.point_map.frame=aligned"),
        against="none-10",
        seeds=3,
        priority=1,
    ),
    "none-10-loud": Arm(
        stage="instrument",
        hypothesis=_LOUD,
        overrides=_few(0.1, "model.encoding_scale=4"),
        against="none-10",
        priority=1,
    ),
    "depth-10-loud": Arm(
        stage="instrument",
        hypothesis=_LOUD,
        overrides=_few(0.1, "model.positions=depth", "model.encoding_scale=4"),
        against="none-10-loud",
        priority=1,
    ),
    "none-100-loud": Arm(
        stage="instrument",
        hypothesis=_LOUD,
        overrides=("model.encoding_scale=4",),
        against="none-100",
        priority=2,
    ),
    "depth-100-loud": Arm(
        stage="instrument",
        hypothesis=_LOUD,
        overrides=("model.positions=depth", "model.encoding_scale=4"),
        against="none-100-loud",
        priority=2,
    ),
    "none-100-loud-long": Arm(
        stage="instrument",
        hypothesis=_LONG,
        overrides=("model.encoding_scale=4", "training.steps=1200"),
        against="none-100-loud",
        seeds=3,
        priority=3,
    ),
    "depth-100-loud-long": Arm(
        stage="instrument",
        hypothesis=_LONG,
        overrides=("model.positions=depth", "model.encoding_scale=4", "training.steps=1200"),
        against="none-100-loud-long",
        seeds=3,
        priority=3,
    ),
    "none-25": Arm(stage="instrument", hypothesis=_INSTRUMENT, overrides=_few(0.25), priority=3),
    "depth-25": Arm(
        stage="instrument",
        hypothesis=_INSTRUMENT,
        overrides=_few(0.25, "model.positions=depth"),
        against="none-25",
        priority=3,
    ),
    "point_map-25": Arm(
        stage="objective",
        hypothesis="H3, H6: point maps with a quarter of the labels",
        overrides=_with(0.25, "objectives.point_map.frame=aligned"),
        against="none-25",
        priority=4,
    ),
    "vision-first": Arm(
        stage="objective",
        hypothesis="H4: the first phase of phases-10, point maps of all rooms and no words",
        overrides=(
            "objectives={point_map: {frame: aligned}}",
            "data.vision_only=1.0",
            "training.steps=300",
            "evaluation.tasks=[scanrefer]",
        ),
        priority=5,
    ),
    "phases-10": Arm(
        stage="objective",
        hypothesis="H4: point maps first, words afterwards, never both at once",
        overrides=_few(0.1),
        start="vision-first",
        against="none-10",
        priority=5,
    ),
    "objects-10": Arm(
        stage="objective",
        hypothesis="H8: point maps, cells of objects weighed five times",
        overrides=_with(0.1, "objectives.point_map={frame: aligned, object_weight: 5.0}"),
        against="none-10",
        priority=5,
    ),
    "point_map-3-10": Arm(
        stage="objective",
        hypothesis="H3: point maps at a middle layer, which later layers can still read",
        overrides=_with(0.1, "objectives.point_map.frame=aligned", "objectives.point_map.layers=[3]"),
        against="none-10",
        priority=3,
    ),
    "depth-head-10": Arm(
        stage="objective",
        hypothesis="H3: depth, rays and poses instead of points",
        overrides=_with(0.1, "objectives.depth={}", "objectives.rays={}"),
        against="none-10",
        priority=3,
    ),
    "shuffled-10": Arm(
        stage="control",
        hypothesis="the same heads and cost, another room's points: regularisation alone",
        overrides=_with(0.1, "objectives.point_map={frame: aligned, shuffle: true}"),
        against="none-10",
        priority=3,
    ),
    "dropped-10": Arm(
        stage="control",
        hypothesis="the same heads, no loss",
        overrides=_with(0.1, "objectives.point_map={frame: aligned, weight: 0.0}"),
        against="none-10",
        priority=6,
    ),
    "alignment-10": Arm(
        stage="objective",
        hypothesis="3DRS: features of the learned geometry teacher at the last layer",
        overrides=_with(0.1, "teachers.features=rooms_geometry", "objectives.alignment={}"),
        against="none-10",
        priority=4,
    ),
    "irepa-10": Arm(
        stage="objective",
        hypothesis="iREPA: the same by a convolution, features normalised over space, three layers",
        overrides=_with(
            0.1,
            "teachers.features=rooms_geometry",
            "objectives.alignment={projector: conv, normalise: spatial, distance: cosine, layers: [2, 3, -1]}",
        ),
        against="none-10",
        priority=5,
    ),
    "cross_view-10": Arm(
        stage="objective",
        hypothesis="Ross3D: hidden views from the others",
        overrides=_with(0.1, "objectives.cross_view={weight: 0.5, conditioning: pose}", "denoiser.diffusion=flow"),
        against="none-10",
        priority=5,
    ),
    "birds_eye-10": Arm(
        stage="objective",
        hypothesis="Ross3D: the room from above",
        overrides=_with(0.1, "objectives.birds_eye={weight: 0.5, conditioning: pose}", "denoiser.diffusion=flow"),
        against="none-10",
        priority=5,
    ),
    "consistency-10": Arm(
        stage="objective",
        hypothesis="3DRS: tokens of one spot agree across views",
        overrides=_with(0.1, "objectives.contrastive={voxel: 0.4}"),
        against="none-10",
        priority=6,
    ),
}

_MEMBERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "point_map": ("objective", "H3: point maps at the last layer", ("objectives.point_map.frame=aligned",)),
    "point_map-3": (
        "objective",
        "H3: point maps at a middle layer, which later layers can still read",
        ("objectives.point_map={frame: aligned, layers: [3]}",),
    ),
    "depth-head": ("objective", "H3: depth and rays instead of points", ("objectives.depth={}", "objectives.rays={}")),
    "alignment": (
        "objective",
        "3DRS: features of the learned geometry teacher at the last layer",
        ("teachers.features=rooms_geometry", "objectives.alignment={}"),
    ),
    "irepa": (
        "objective",
        "iREPA: the same by a convolution, features normalised over space, three layers",
        (
            "teachers.features=rooms_geometry",
            "objectives.alignment={projector: conv, normalise: spatial, distance: cosine, layers: [2, 3, -1]}",
        ),
    ),
    "cross_view": (
        "objective",
        "Ross3D: hidden views from the others",
        ("objectives.cross_view={weight: 0.5, conditioning: pose}", "denoiser.diffusion=flow"),
    ),
    "birds_eye": (
        "objective",
        "Ross3D: the room from above",
        ("objectives.birds_eye={weight: 0.5, conditioning: pose}", "denoiser.diffusion=flow"),
    ),
    "ross3d": (
        "objective",
        "Ross3D: hidden views and the room from above",
        (
            "objectives.cross_view={weight: 0.5, conditioning: pose}",
            "objectives.birds_eye={weight: 0.5, conditioning: pose}",
            "denoiser.diffusion=flow",
        ),
    ),
    "consistency": (
        "objective",
        "3DRS: tokens of one spot agree across views",
        ("objectives.contrastive={voxel: 0.4}",),
    ),
    "shuffled": (
        "control",
        "the same heads and cost, another room's points: regularisation alone",
        ("objectives.point_map={frame: aligned, shuffle: true}",),
    ),
    "dropped": ("control", "the same heads, no loss", ("objectives.point_map={frame: aligned, weight: 0.0}",)),
}
"""What is added to words where true positions are worth something: long runs, loud encodings."""


def _long_arms() -> dict[str, Arm]:
    """Every member, words of all rooms and of a quarter, in the setting in which positions count."""
    setting = ("model.encoding_scale=4", "training.steps=1200")
    found = {}
    for label, share in (("100", 1.0), ("25", 0.25)):
        against = f"none-{label}-loud-long"
        if share < 1:
            found[against] = Arm(
                stage="instrument", hypothesis=_INSTRUMENT, overrides=_few(share, *setting), seeds=3, priority=4
            )
            found[f"depth-{label}-loud-long"] = Arm(
                stage="instrument",
                hypothesis=_INSTRUMENT,
                overrides=_few(share, "model.positions=depth", *setting),
                against=against,
                seeds=3,
                priority=5,
            )
        for name, (stage, hypothesis, overrides) in _MEMBERS.items():
            found[f"{name}-{label}-loud-long"] = Arm(
                stage=stage,
                hypothesis=hypothesis,
                overrides=_with(share, *setting, *overrides),
                against=against,
                priority=5 if share == 1 else 6,
            )
    return found


ARMS |= _long_arms()
