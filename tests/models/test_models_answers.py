"""What notebooks show of answers, and a scene's still picture."""

import numpy as np
import pytest
import torch

from stereopsis.models.answers import Answer, Found
from stereopsis.models.inference import enter_scene
from stereopsis.models.storage import load_model
from stereopsis.training.sources import open_folder

BOXES = torch.tensor([[0.0, 0, 0, 1, 1, 1], [1, 2, 3, 0.5, 0.5, 0.5], [2, 0, 0, 1, 1, 1]])


def test_candidates_come_best_first_and_none_wins_where_it_scores_more():
    found = Found(cosines=torch.tensor([0.1, 0.7, 0.3]), zero_cosine=0.5, boxes=BOXES, text="<the bed>")
    assert [c.index for c in found.ranked(2)] == [1, 2]
    assert found.box == [1.0, 2.0, 3.0, 0.5, 0.5, 0.5]
    shown = found._repr_html_()
    assert "&lt;the bed&gt;" in shown
    assert shown.index("box 1") < shown.index("no such object") < shown.index("box 2")
    assert Found(cosines=torch.tensor([0.1]), zero_cosine=0.2, boxes=BOXES[:1]).box is None
    with pytest.raises(ValueError, match="without boxes"):
        Found(cosines=torch.tensor([0.1]), zero_cosine=0.0).ranked()


def test_answers_cannot_bring_markup():
    assert Answer(text="<b>two</b>", tokens=2)._repr_html_() == "<p>&lt;b&gt;two&lt;/b&gt;</p>"


def test_a_room_shows_its_views_and_what_was_found(tiny_base, tiny_rooms):
    scene = open_folder(tiny_rooms)[0]
    room = enter_scene(load_model(tiny_base), scene, views=4)
    plain = room.show()
    boxed = room.show([[float(v) for v in scene.proposals[0].box]])
    assert plain.size == (4 * 246 - 6, 240)
    assert (np.asarray(plain) != np.asarray(boxed)).any()
    look = room.look_for("the bed")
    assert look.box == room.find("the bed")
    assert room.measure([0.0, 0.0, 0.0], [0.0, 3.0, 4.0]).distance == pytest.approx(5.0)
    assert room.nbytes > room.hidden.numel() * 4
