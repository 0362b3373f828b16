"""The shared prefix: who sees whom, and a cache that neither copies nor remembers more than it should."""

import pytest
import torch

from stereopsis.models.inference import LEAST_TOKENS, EnteredScene
from stereopsis.models.prefix import PrefixCache, packed_allowed


def test_everybody_sees_the_prefix_and_only_himself():
    """Prefix of two; questions of two and one tokens; then a word of each."""
    owners = torch.tensor([0, 0, 1, 0, 1])
    reading = packed_allowed(2, owners[:3], 3)[0]
    assert reading.tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, False, False, True],
    ]
    speaking = packed_allowed(2, owners, 2)[0]
    assert speaking.tolist() == [
        [True, True, True, True, False, True, False],
        [True, True, False, False, True, False, True],
    ]


def test_a_growing_cache_returns_what_concatenation_would():
    generator = torch.Generator().manual_seed(0)
    cache, keys, values = PrefixCache(), [], []
    for new in (5, 1, 300, 2, 1, 700):
        key, value = torch.randn(2, 1, 3, new, 4, generator=generator)
        keys.append(key)
        values.append(value)
        for layer in range(2):
            all_keys, all_values = cache.update(key + layer, value - layer, layer)
            assert torch.equal(all_keys, torch.cat(keys, dim=2) + layer)
            assert torch.equal(all_values, torch.cat(values, dim=2) - layer)
    cache.keep(6)
    assert cache.get_seq_length() == 6
    key, value = torch.randn(2, 1, 3, 2, 4, generator=generator)
    again, _ = cache.update(key, value, 0)
    assert torch.equal(again, torch.cat([*keys[:2], key], dim=2))


def test_a_step_does_not_copy_the_prefix():
    cache = PrefixCache()
    cache.update(torch.zeros(1, 2, 100, 4), torch.zeros(1, 2, 100, 4), 0)
    start = cache.layers[0].keys.data_ptr()
    for _ in range(10):
        cache.update(torch.ones(1, 2, 7, 4), torch.ones(1, 2, 7, 4), 0)
    assert cache.layers[0].keys.data_ptr() == start


def test_passes_are_whole_neighbours_within_the_limits(make_model, make_pack, talk):
    room = EnteredScene(make_model().eval(), make_pack(2))
    asked = [talk["where"]] * 90
    length = len(room.collator.conversation_ids(talk["where"])[0])
    most = LEAST_TOKENS // length
    for limit, size in ((7, 7), (1, 1), (1000, most)):
        groups = room.passes(asked, most=limit)
        assert [place for group in groups for place in group] == list(range(90))
        assert {len(group) for group in groups[:-1]} <= {size}
    assert room.passes([]) == []


@torch.no_grad()
@pytest.mark.parametrize("positions", ["depth", "none"])
def test_more_questions_than_fit_into_a_pass_are_answered_in_order(make_model, make_pack, talk, positions, monkeypatch):
    import stereopsis.models.inference as inference

    room = EnteredScene(make_model(positions=positions).eval(), make_pack(2, seed=4))
    asked = [talk[name] for name in ("where", "many", "what", "where", "many")]
    pointed = [talk[name] for name in ("red", "both", "none")]
    together = room.answer(asked, max_new_tokens=6), room.score_proposals(pointed)
    monkeypatch.setattr(inference, "LEAST_TOKENS", 1)
    assert len(room.passes(asked)) > 1
    assert room.answer(asked, max_new_tokens=6) == together[0]
    for one, other in zip(room.score_proposals(pointed), together[1], strict=True):
        torch.testing.assert_close(one.cosines, other.cosines, atol=1e-5, rtol=0)


def test_an_error_leaves_the_prefix_clean(make_model, make_pack, talk, monkeypatch):
    room = EnteredScene(make_model().eval(), make_pack(1))
    expected = room.answer([talk["where"]], max_new_tokens=3)
    monkeypatch.setattr(room.model.adapter, "logits", lambda hidden: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        room.answer([talk["where"]])
    monkeypatch.undo()
    assert room.cache.get_seq_length() == room.prefix_length
    assert room.answer([talk["where"]], max_new_tokens=3) == expected
