"""Samples of like length in one step: less padding, the same samples, the same order for everybody."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.data.pack import Conversation
from stereopsis.packs.batch_sampler import Deal, DealtBatches
from stereopsis.packs.dataset import PackDataset, ShuffledSampler
from stereopsis.packs.length_grouping import GroupedSampler


class _Measured(PackDataset):
    """Items without packs: lengths, those with words first."""

    def __init__(self, texts: list[int], silent: list[int] | None = None) -> None:
        self.items = [(i, (0,)) for i in range(len(texts))] + [(i, ()) for i in range(len(silent or ()))]
        self.texts, self.lengths = len(texts), [*texts, *(silent or ())]
        self.vision_only = None if silent is None else 0.5


def padded(order: list[int], lengths: list[int], rows: int) -> float:
    """Share of padding in batches of so many rows."""
    batches = [[lengths[i] for i in order[first : first + rows]] for first in range(0, len(order), rows)]
    held = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(map(sum, batches)) / held


def ragged(number: int, seed: int) -> list[int]:
    return torch.randint(200, 2000, (number,), generator=torch.Generator().manual_seed(seed)).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(0, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2))
def test_every_sample_once_and_every_kind_in_its_place(texts, silent, step, window, epoch):
    dataset = _Measured(ragged(texts, 0), ragged(silent, 1) or None)
    sampler = GroupedSampler(dataset, 5, step=step, window=window)
    sampler.set_epoch(epoch)
    order, before = list(sampler), list(sampler.base)
    assert order == list(sampler)
    assert len(sampler) == len(order)
    span, total = step * window, len(order)
    rest = min(-epoch * total % step, total)
    for first, last in [(0, rest), *((start, start + span) for start in range(rest, total, span))]:
        assert sorted(order[first:last]) == sorted(before[first:last])
    if silent:
        assert [i >= texts for i in order] == [i >= texts for i in before]


@pytest.mark.parametrize("silent", [None, 160])
def test_padding_falls_to_a_fraction(silent):
    dataset = _Measured(ragged(480, 2), None if silent is None else ragged(silent, 3))
    plain, grouped = list(ShuffledSampler(len(dataset.lengths), 0)), list(GroupedSampler(dataset, 0, step=16))
    before, after = padded(plain, dataset.lengths, 4), padded(grouped, dataset.lengths, 4)
    assert before > 0.25
    assert after < (0.03 if silent is None else 0.16)


def test_lengths_do_not_rise_through_a_window():
    dataset = _Measured(ragged(512, 4))
    order = list(GroupedSampler(dataset, 0, step=16))
    means = torch.tensor([dataset.lengths[i] for i in order]).float().view(-1, 16).mean(1)
    rank = means.argsort().argsort().float()
    assert torch.corrcoef(torch.stack([rank, torch.arange(32.0)]))[0, 1].abs() < 0.5


@pytest.mark.parametrize(("ranks", "rows", "passes"), [(1, 16, 1), (4, 4, 1), (2, 2, 4), (8, 1, 2)])
def test_a_step_is_the_same_however_it_is_divided(ranks, rows, passes):
    """150 samples do not divide into steps of 16: the tenth is filled from the second epoch."""
    dataset = _Measured(ragged(150, 5))
    deal = Deal(processes=ranks, passes=passes, scenes=rows)
    shares = [
        list(DealtBatches(GroupedSampler(dataset, 0, step=16), deal, rank=rank, steps=20)) for rank in range(ranks)
    ]
    sampler = GroupedSampler(dataset, 0, step=16)
    expected = list(sampler)
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        expected += list(sampler)
    for step in range(20):
        found = [i for share in shares for batch in share[step * passes : (step + 1) * passes] for i in batch]
        assert sorted(found) == sorted(expected[step * 16 : (step + 1) * 16])


def test_steps_of_later_epochs_hold_like_lengths_too():
    """Epochs of 150 samples begin in the middle of steps of 16."""
    dataset = _Measured(ragged(150, 8))
    (share,) = [DealtBatches(GroupedSampler(dataset, 0, step=16), Deal(scenes=16), rank=0, steps=45)]
    spreads = [max(lengths) - min(lengths) for lengths in ([dataset.lengths[i] for i in batch] for batch in share)]
    whole = [spread for step, spread in enumerate(spreads) if (step * 16) // 150 == (step * 16 + 15) // 150]
    assert len(whole) > 40
    assert max(whole) < 600  # of 1 800


def test_orders_differ_between_epochs_and_seeds():
    dataset = _Measured(ragged(64, 6), ragged(32, 7))

    def order(seed: int, epoch: int) -> list[int]:
        sampler = GroupedSampler(dataset, seed, step=8)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("views", [None, 2])
def test_measured_lengths_are_those_of_the_batch(make_pack, make_model, talk, views):
    """Scenes of one to four views, with conversations and without."""
    packs = [make_pack(n, *list(talk.values())[: 2 * n - 2], seed=n) for n in (1, 2, 3, 4)]
    packs.append(make_pack(3, Conversation(id="x", task="scanqa", prompt="where?", answer="on the table"), seed=9))
    collate = make_model().collator()
    dataset = PackDataset(packs, conversations=2, views=views, subsets=2, vision_only=0.4, measure=collate)
    for index, length in enumerate(dataset.lengths):
        assert length == collate([dataset[index]]).input_ids.shape[1]
    assert len(set(dataset.lengths)) > 3
    with pytest.raises(ValueError, match=r"measure=model\.collator"):
        GroupedSampler(PackDataset(packs, conversations=2), 0, step=4)
