"""A plug-in for lmms-eval: benchmarks that are answered in words as tasks, and our models as a model.

lmms-eval finds models of installed packages by their entry points, and tasks in a folder that it is told of. So
nothing of it is changed::

    python -m stereopsis.integrations.lmms_eval data/scannet --output tasks
    lmms-eval --model stereopsis --model_args pretrained=runs/first/model --tasks stereopsis_NAME --include_path tasks

The tasks are plain: any image model of lmms-eval can be run on them, and sees the scene's views as pictures. Grounding
(scores of proposals) and captions (a point in space inside the prompt) have no form in lmms-eval, whose requests are
text and pictures in, text out; they stay with ``stereopsis evaluate``.
"""

from typing import Any

MODEL_NAME = "stereopsis"
MODEL_CLASS = "stereopsis.integrations.lmms_eval.model.StereopsisModel"


def model_manifest() -> Any:
    """What lmms-eval's entry point group ``lmms_eval.models`` asks for: the model's name and where its class is."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_NAME, simple_class_path=MODEL_CLASS)
