"""Steps dealt to processes and passes: the same scenes in the same steps, none left out, none twice."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.errors import RecipeError
from stereopsis.packs.batch_sampler import Deal, DealtBatches
from stereopsis.packs.dataset import ShuffledSampler


def dealt(deal: Deal, *, items: int, steps: int, seed: int = 0) -> list[list[int]]:
    """Per step, the items of all processes and passes by their place."""
    order = ShuffledSampler(items, seed)
    shares = [list(DealtBatches(order, deal, rank=rank, steps=steps)) for rank in range(deal.processes)]
    found = []
    for step in range(steps):
        taken: dict[int, int] = {}
        for rank, batches in enumerate(shares):
            for number in range(deal.passes):
                places = deal.indices(rank, number)
                taken |= dict(zip(places, batches[step * deal.passes + number], strict=True))
        assert sorted(taken) == list(range(deal.batch))
        found.append([taken[place] for place in range(deal.batch)])
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 20), st.integers(0, 3))
def test_who_takes_a_scene_changes_no_step(processes, passes, scenes, items, seed):
    deal = Deal(processes=processes, passes=passes, scenes=scenes)
    alone = Deal(scenes=deal.batch)
    assert dealt(deal, items=items, steps=5, seed=seed) == dealt(alone, items=items, steps=5, seed=seed)


def test_epochs_follow_each_other_without_a_gap():
    steps = dealt(Deal(processes=2, scenes=2), items=7, steps=7)
    stream = iter([item for step in steps for item in step])
    epochs = [list(islice(stream, 7)) for _ in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_more_scenes_than_there_are_come_from_several_epochs():
    assert sorted(dealt(Deal(scenes=5), items=2, steps=1)[0])[:2] == [0, 0]


def test_the_passes_of_processes_are_dealt_by_hand():
    deal = Deal(processes=2, passes=2, scenes=3)
    assert deal.batch == 12
    places = [[list(deal.indices(rank, number)) for number in range(2)] for rank in range(2)]
    assert places == [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]


@pytest.mark.parametrize(
    ("batch", "processes", "most", "expected"),
    [
        (8, 1, 8, (1, 8)),
        (8, 1, 3, (4, 2)),  # three passes of three would be nine
        (8, 2, 8, (1, 4)),
        (8, 8, 4, (1, 1)),
        (16, 1, 1, (16, 1)),
        (7, 1, 2, (7, 1)),
    ],
)
def test_a_step_is_shared_in_as_few_passes_as_may_be(batch, processes, most, expected):
    deal = Deal.of(batch, processes=processes, most=most)
    assert (deal.passes, deal.scenes) == expected
    assert deal.batch == batch


@pytest.mark.parametrize("processes", [3, 5, 12])
def test_a_step_that_cannot_be_shared_evenly_is_refused(processes):
    with pytest.raises(
        RecipeError, match=rf"8 scenes cannot be shared evenly by {processes} processes; start 1, 2, 4, 8"
    ):
        Deal.of(8, processes=processes, most=8)
