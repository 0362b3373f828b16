"""Mixtures of scenes and samples with and without words: exact, evenly spread, and the same on every rank."""

import collections
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.data.pack import Conversation
from stereopsis.errors import RecipeError
from stereopsis.packs.batch_sampler import Deal, DealtBatches
from stereopsis.packs.dataset import EvenSampler, PackDataset, chosen_share, nearest, with_vision_share


def _said(number: int) -> tuple[Conversation, ...]:
    return tuple(Conversation(id=str(i), task="scanqa", prompt=f"{i}?", answer="a") for i in range(number))


@pytest.fixture(scope="module")
def packs(make_pack):
    """Ten scenes with five conversations each, and three without any."""
    return [make_pack(2, *_said(5 if seed < 10 else 0), seed=seed) for seed in range(13)]


def spoken(dataset: PackDataset) -> set[str]:
    return {dataset[i].scene_id for i in range(len(dataset)) if dataset[i].conversations}


def silent(dataset: PackDataset) -> list[bool]:
    return [not dataset[i].conversations for i in range(len(dataset))]


@given(st.decimals(0, 1, places=3), st.integers(0, 200))
def test_the_nearest_number_is_the_nearest_and_halves_go_up(share, total):
    found = nearest(float(share), total)
    assert abs(found - Fraction(share) * total) <= Fraction(1, 2)
    assert [nearest(0.5, n) for n in range(4)] == [0, 1, 1, 2]
    assert nearest(0.29, 100) == 29  # 0.29 * 100 = 28.999999999999996


@given(st.integers(0, 60), st.decimals(0, 1, places=2), st.integers(0, 3))
def test_a_share_of_the_scenes_is_exact_nested_and_blind_to_order(number, share, seed):
    names = [f"scene{i:04d}" for i in range(number)]
    chosen = [names[i] for i in chosen_share(names, float(share), seed)]
    assert len(chosen) == len(set(chosen)) == nearest(float(share), number)
    backwards = names[::-1]
    assert {backwards[i] for i in chosen_share(backwards, float(share), seed)} == set(chosen)
    assert set(chosen) <= {names[i] for i in chosen_share(names, 1.0, seed)}
    more = chosen_share(names, min(1.0, float(share) + 0.1), seed)
    assert set(chosen) <= {names[i] for i in more}


def test_adding_scenes_keeps_the_ranks_of_the_old_ones():
    old, new = [f"scene{i}" for i in range(100)], [f"scene{i}" for i in range(110)]
    before, after = set(chosen_share(old, 0.5, 0)), set(chosen_share(new, 0.5, 0))
    assert len(before) == 50
    assert len(after) == 55
    assert len(before - after) <= 10  # at most as many leave as scenes came
    assert chosen_share(old, 0.5, 0) != chosen_share(old, 0.5, 1)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_words_by_scene(packs, share):
    dataset = PackDataset(packs, conversations=2, text_share=share, seed=3)
    kept = spoken(dataset)
    assert len(kept) == nearest(share, 10)
    assert {dataset[i].scene_id for i in range(len(dataset))} == {pack.scene_id for pack in packs}
    words = collections.Counter(dataset[i].scene_id for i in range(len(dataset)) for _ in dataset[i].conversations)
    assert all(words[scene] == 5 for scene in kept)
    assert kept == spoken(PackDataset(packs[::-1], conversations=4, text_share=share, seed=3))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_vision_by_sample(packs, share):
    dataset = PackDataset(packs, conversations=2, vision_only=share, seed=1)
    without = sum(silent(dataset))
    texts = len(dataset) - without
    assert share == 1.0 or without == {0.0: 0, 0.1: 3, 0.5: 30, 0.75: 90}[share]  # beside 30 with words
    assert dataset.texts == texts == (0 if share == 1.0 else 30)  # all words stay, each once
    assert silent(dataset) == sorted(silent(dataset)), "items with words come first"
    shown = collections.Counter(dataset[i].scene_id for i in range(texts, len(dataset)))
    assert shown.keys() <= {pack.scene_id for pack in packs[10:]}, "vision-only passes show the scenes without words"
    assert not shown or max(shown.values()) - min(shown.get(p.scene_id, 0) for p in packs[10:]) <= 1


def test_scenes_with_words_are_shown_without_where_all_have_some(packs):
    dataset = PackDataset(packs[:10], conversations=5, vision_only=0.5, seed=1)
    assert len(dataset) == 20
    shown = [dataset[i].scene_id for i in range(10, 20)]
    assert sorted(shown) == sorted(pack.scene_id for pack in packs[:10])


def test_both_together_are_the_papers_half_and_half(packs):
    dataset = PackDataset(packs[:10], conversations=1, text_share=0.5, vision_only=0.5, seed=0)
    kept = spoken(dataset)
    assert (len(kept), dataset.texts, len(dataset)) == (5, 25, 50)
    assert kept.isdisjoint({dataset[i].scene_id for i in range(25, 50)})


def test_words_that_nobody_has_are_refused(packs):
    with pytest.raises(RecipeError, match=r"data\.vision_only is 0\.5.*no scene has any"):
        PackDataset(packs[10:], conversations=2, vision_only=0.5)
    assert len(PackDataset(packs[10:], conversations=2, vision_only=1.0)) == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.decimals(0, "0.95", places=2), st.integers(0, 5), st.integers(0, 3), st.data())
def test_every_window_of_the_order_has_its_share(texts, share, pool, epoch, data):
    items = [(i, (0,)) for i in range(texts)] + [(texts + i, ()) for i in range(pool)]
    made = with_vision_share(items, float(share), torch.Generator().manual_seed(0))
    sampler = EvenSampler(_Fake(made), seed=5)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(made)))
    assert order == list(sampler)
    length = data.draw(st.integers(1, len(order)))
    start = data.draw(st.integers(0, len(order) - length))
    exact = Fraction(len(made) - texts, len(made))
    found = sum(not made[i][1] for i in order[start : start + length])
    assert abs(found - exact * length) < 1


class _Fake(PackDataset):
    """Items without packs."""

    def __init__(self, items) -> None:
        self.items, self.texts = items, sum(bool(group) for _, group in items)


def test_orders_differ_between_epochs_and_seeds():
    dataset = _Fake([(i, (0,)) for i in range(20)] + [(i, ()) for i in range(20)])

    def order(seed: int, epoch: int) -> list[int]:
        sampler = EvenSampler(dataset, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_step_has_the_share_over_all_ranks(ranks):
    dataset = _Fake([(i, (0,)) for i in range(48)] + [(i, ()) for i in range(16)])
    deal = Deal(processes=ranks, scenes=4)
    shares = [list(DealtBatches(EvenSampler(dataset, 0), deal, rank=r, steps=16 // ranks)) for r in range(ranks)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(64))
    for step in zip(*shares, strict=True):
        passes = [index for batch in step for index in batch]
        assert sum(index >= 48 for index in passes) == len(passes) // 4
