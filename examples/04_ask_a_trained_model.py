"""Enter a room that a trained model has never seen: ask, find, describe.

python examples/04_ask_a_trained_model.py [RUN]

RUN is a folder made by 'stereopsis train', or an arm of the demo; without it, demo/stereopsis is taken.
"""

import sys
from pathlib import Path

from stereopsis.models.inference import enter_scene
from stereopsis.scenes.prepare import prepared_room
from stereopsis.scenes.rooms.language import split_seeds
from stereopsis.training.train_run import open_run

_, model = open_run(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/stereopsis"))
scene = prepared_room(split_seeds("test", 1)[0])

room = enter_scene(model, scene, views=8)  # the views are encoded once, here; every question below reuses them

for annotation in [a for a in scene.annotations if a.task in ("sqa3d", "scanqa")][::4]:
    question = f"{annotation.situation} {annotation.text}".strip()
    print(f"{question} -> {room.ask(question)}   (right: {annotation.answers[0]})")

wanted = next(a for a in scene.annotations if a.task == "scanrefer")
truth = scene.object(wanted.object_ids[0]).box.round(2).tolist()
found = room.find(wanted.text)
print(f"{wanted.text} -> {None if found is None else [round(v, 2) for v in found]}   (truth: {truth})")

print(f"what stands at {truth[:3]}? -> {room.describe(truth)}")
