"""What may be wrong with a scene that could be read."""

from stereopsis.scenes.agreement import KEY, in_words
from stereopsis.scenes.bad_frames import BLANK_DEPTH, stray_cameras
from stereopsis.scenes.scene import Scene


def contradicts_itself(scene: Scene) -> bool:
    """Whether its views are on record as contradicting each other."""
    return (scene.provenance.get(KEY) or {}).get("verdict") == "contradict"


def scene_warnings(scene: Scene) -> list[str]:
    """What may be wrong with a scene that could be read, in words: contradicting views, empty depth images."""
    warnings = []
    agreement = scene.provenance.get(KEY) or {}
    if contradicts_itself(scene) or "but " in agreement.get("reason", ""):
        warnings.append(f"depth agreement: {in_words(agreement)}")
    warnings += [f"frame '{name}': {reason}" for name, reason in stray_cameras(scene).items()]
    blank = scene.provenance.get(BLANK_DEPTH) or []
    if blank:
        warnings.append(f"{len(blank)} of {len(scene.frames)} depth images hold nothing: {', '.join(blank[:3])}")
    return warnings
