"""Every objective on one batch: what is asked of the model, and what it costs before any training.

python examples/03_objectives_on_one_batch.py
"""

import torch

from stereopsis.data.pack import ScenePack
from stereopsis.packs.build import build_pack
from stereopsis.scenes.prepare import prepared_room
from stereopsis.training.build import build_model, build_objectives, build_teachers
from stereopsis.training.recipe import parse_recipe

recipe = parse_recipe(
    {
        "name": "all at once",
        "objectives": {
            "text": {},
            "grounding": {},
            "vanilla": {},
            "cross_view": {"every": 1, "conditioning": "released"},
            "birds_eye": {},
            "alignment": {},
        },
    }
)


def packs(seeds: list[int]) -> list[ScenePack]:
    """Rooms as tensors, with six of their conversations each and with the teachers' targets."""
    config = model.pack_config(views=8, tasks=recipe.data.tasks)
    rooms = [build_pack(prepared_room(seed), config, teachers) for seed in seeds]
    return [room.replace(conversations=room.conversations[::10][:6]) for room in rooms]


model, teachers = build_model(recipe), build_teachers(recipe)
batch = model.collator()(packs([0, 1]))
print("views", tuple(batch.images.shape), "tokens", tuple(batch.input_ids.shape), "grid", batch.layout.grid)
for name, target in batch.targets.items():
    print(f"  target {name}: {tuple(target.shape)}")

model.objectives = build_objectives(recipe, model.adapter.dim, batch.targets)
model.objectives.check(batch)
due = model.objectives.due(step=0)
losses = model(batch, due=due, seed=0)
for name, loss in losses.items():
    mean = float(loss.sum.detach()) / max(loss.count, 1)
    figures = ", ".join(f"{key} {value:.3f}" for key, value in loss.metrics.items())
    print(f"{name:>11}: {mean:7.3f} over {loss.count:.0f} terms  {figures}")

total = torch.stack([loss.sum / max(loss.count, 1) for loss in losses.values()]).sum()
total.backward()
reached = model.backbone.get_input_embeddings().weight.grad
print("gradient at the word embeddings:", float(reached.norm()))
