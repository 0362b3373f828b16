"""What a person may say on the command line about a capture's poses and depth, and how strictly it is checked."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stereopsis.scenes.conventions import ReadOptions

DepthScale = Annotated[
    float | None,
    typer.Option(
        help="Captures: units of the depth images per metre, e.g. 1000, 5000 or 6553.5 (instead of the layout's own)."
    ),
]
Axes = Annotated[str | None, typer.Option(help="Captures: the cameras' axes, opencv or opengl.")]
Pose = Annotated[str | None, typer.Option(help="Captures: what stored poses do, camera-to-world or world-to-camera.")]
Quaternion = Annotated[str | None, typer.Option(help="Captures: order of stored quaternions, xyzw or wxyz.")]
PoseUnit = Annotated[float | None, typer.Option(help="Captures: metres per unit of stored positions, e.g. 0.001.")]
MinAgreement = Annotated[
    float | None,
    typer.Option(
        help="Captures: refuse scenes whose depth images agree less through their poses, 0 to 1. Without it, those are "
        "refused that a usual mistake (units, axes, inverse poses) explains; 0 refuses none."
    ),
]
MaxBadFraction = Annotated[
    float, typer.Option(help="With --skip-bad-frames: refuse captures with a larger share of unusable frames.")
]


def read_options(
    depth_scale: float | None, axes: str | None, pose: str | None, quaternion: str | None, pose_unit: float | None
) -> "ReadOptions":
    """What was said, checked.

    Raises:
        SceneError: an unknown word, or a number out of range.
    """
    from stereopsis.scenes.conventions import ReadOptions  # brings all readers, which help must not wait for

    return ReadOptions(depth_scale=depth_scale, axes=axes, pose=pose, quaternion=quaternion, pose_unit=pose_unit)
