"""Ask a trained model about a room that it has never seen.

python examples/04_ask_a_trained_model.py RUN

RUN is a folder made by 'stereopsis train' or an arm of the demo, for example demo/stereopsis.
"""

import sys
from pathlib import Path

from stereopsis.data.pack import Conversation, candidate_boxes, conversation_of
from stereopsis.experiment import open_run
from stereopsis.models.inference import EnteredScene
from stereopsis.models.packs import PackConfig, build_pack
from stereopsis.scenes.rooms.language import split_seeds
from stereopsis.training.sources import prepared_room


def main() -> None:
    recipe, model = open_run(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/stereopsis"))
    room = prepared_room(split_seeds("test", 1)[0])
    config = PackConfig.for_model(model, views=recipe.data.views, proposals="detector")

    entered = EnteredScene(model, build_pack(room, config))  # the views are encoded once, here
    boxes = candidate_boxes(room, "detector")

    asked = [a for a in room.annotations if a.task in ("sqa3d", "scanqa")][:6]
    for annotation, answer in zip(asked, entered.answer([conversation_of(a, room, boxes) for a in asked]), strict=True):
        print(f"{annotation.situation} {annotation.text} -> {answer}   (right: {annotation.answers[0]})")

    mine = Conversation(
        id="mine",
        task="scanqa",
        prompt="how many chairs are in the room? Answer the question simply.",
        answer="",
    )
    print(f"my own question -> {entered.answer([mine])[0]}")

    wanted = next(a for a in room.annotations if a.task == "scanrefer")
    found = entered.find([conversation_of(wanted, room, boxes)])[0]
    best = int(found.cosines.argmax())
    truth = room.object(wanted.object_ids[0]).box
    print(f"{wanted.text} -> box {boxes[best].round(2)}   (truth: {truth.round(2)})")


if __name__ == "__main__":
    main()
