"""Our model as lmms-eval sees one: requests in any order, each scene encoded once.

Importing this module needs lmms-eval, which imports it when ``--model stereopsis`` is asked for.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms

from stereopsis.data.pack import Conversation
from stereopsis.errors import StereopsisError
from stereopsis.models.inference import EnteredScene
from stereopsis.models.storage import load_model
from stereopsis.packs.build import build_pack
from stereopsis.scenes.formats import open_scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestedQuestion:
    """One request.

    Attributes:
        scene: folder of the scene.
        task: the benchmark.
        prompt: the words.
        max_new_tokens: longest answer.
    """

    scene: str
    task: str
    prompt: str
    max_new_tokens: int


def answer_by_scene(
    questions: Sequence[RequestedQuestion], enter: Callable[[str], EnteredScene], *, batch: int = 32
) -> list[str]:
    """Answers in the questions' order; every scene is entered once, whatever the order.

    Args:
        questions: of any scenes.
        enter: encodes a scene.
        batch: questions that are answered together.
    """
    by_scene: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        by_scene.setdefault(question.scene, []).append(index)
    answers = [""] * len(questions)
    for scene, indices in by_scene.items():
        room = enter(scene)
        lengths = sorted({questions[index].max_new_tokens for index in indices})
        for length in lengths:
            alike = [index for index in indices if questions[index].max_new_tokens == length]
            for start in range(0, len(alike), batch):
                group = alike[start : start + batch]
                asked = [
                    Conversation(id=str(index), task=questions[index].task, prompt=questions[index].prompt, answer="")
                    for index in group
                ]
                for index, text in zip(group, room.answer(asked, max_new_tokens=length), strict=True):
                    answers[index] = text
    return answers


class StereopsisModel(lmms):
    """A model folder (or a plain Hugging Face multimodal LLM) behind lmms-eval's interface.

    Args:
        pretrained: model folder, as `train` writes it.
        views: of a scene, evenly spaced; all where 0.
        device: such as "cuda" or "cpu".
        batch_size: questions that are answered together.
        unused: what lmms-eval passes to every model and this one has no use for.
    """

    is_simple = True

    def __init__(
        self, pretrained: str, views: int = 32, device: str = "cpu", batch_size: int | str = 32, **unused: Any
    ) -> None:
        super().__init__()
        self.views = int(views) or None
        self.batch = int(batch_size) if str(batch_size).isdecimal() else 32
        self.spatial = load_model(Path(pretrained)).to(device).eval()

    def enter(self, scene: str) -> EnteredScene:
        """Encode a scene's views."""
        config = self.spatial.pack_config(views=self.views)
        return EnteredScene(self.spatial, build_pack(open_scene(Path(scene)), config))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy answers, in the requests' order.

        Raises:
            StereopsisError: a request is of another task than those that this package writes, or asks to sample.
        """
        return answer_by_scene([self._question(request.args) for request in requests], self.enter, batch=self.batch)

    def _question(self, arguments: tuple[Any, ...]) -> RequestedQuestion:
        prompt, settings, _, doc_id, task, split = arguments
        doc: Mapping[str, Any] = self.task_dict[task][split][doc_id]
        if "scene" not in doc:
            raise StereopsisError(
                f"task '{task}' shows pictures without depth and poses, and this model needs a scene; use the tasks "
                "that 'python -m stereopsis.integrations.lmms_eval' writes"
            )
        if settings.get("do_sample") or float(settings.get("temperature") or 0) > 0:
            raise StereopsisError(f"task '{task}' asks to sample (temperature above 0); this model answers greedily")
        longest = int(settings.get("max_new_tokens", 32))
        return RequestedQuestion(scene=doc["scene"], task=doc["task"], prompt=prompt, max_new_tokens=longest)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: these benchmarks have one round."""
        raise StereopsisError("the stereopsis model answers single questions; multi-round tasks are not supported")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: these benchmarks are generated, not ranked."""
        raise StereopsisError("the stereopsis model generates answers; tasks that rank given answers are not supported")
