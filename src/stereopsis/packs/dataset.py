"""What one training item is, which items have words, and in which order they come.

Semi-supervised training (Ross3D: half of the words, vision alone for the rest) is said in two ways, alone or together:

- by scene: `text_share` of the scenes that have words keep them; the others are seen without;
- by sample: `vision_only` of all items are vision-only passes, and the sampler spreads them evenly.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch

from stereopsis.data.collate import Collator
from stereopsis.data.pack import ScenePack
from stereopsis.errors import RecipeError
from stereopsis.packs.batch_sampler import EpochOrder
from stereopsis.packs.build import name_seed

Item = tuple[int, tuple[int, ...]]


class PackDataset(torch.utils.data.Dataset):
    """Every conversation once: each item is a scene with at most K of its conversations, or with none (vision only).

    Packs are taken from the sequence when they are asked for and never kept, so that those on disk stay there.

    Args:
        packs: scenes with all their conversations.
        conversations: K.
        views: where given, items show random subsets of so many views.
        subsets: how many subsets per scene (only with ``views``).
        text_share: share of the scenes with words that keep them, to the nearest scene.
        vision_only: share of the items that have no words, to the nearest item; None: what the scenes give.
        seed: of the grouping, the subsets and the choice of scenes; item i is the same in every epoch and process.
        measure: writes the items' sequences; where given, their lengths are known.

    Attributes:
        items: each item's scene and conversations; those with words come first where ``vision_only`` is given.
        texts: how many items have words.
        lengths: each item's tokens, or None.

    Raises:
        RecipeError: items with words are asked for, and no scene has any.
    """

    def __init__(
        self,
        packs: Sequence[ScenePack],
        *,
        conversations: int,
        views: int | None = None,
        subsets: int = 1,
        text_share: float = 1.0,
        vision_only: float | None = None,
        seed: int = 0,
        measure: Collator | None = None,
    ) -> None:
        self.packs, self.views, self.seed, self.vision_only = packs, views, seed, vision_only
        generator = torch.Generator().manual_seed(seed)
        scenes, tokens = [], []
        for pack in packs:
            scenes.append((pack.scene_id, len(pack.conversations), len(pack.images)))
            if measure is not None:
                tokens.append(_tokens(pack, measure, views))
        spoken = [number for number, (_, words, _) in enumerate(scenes) if words]
        kept = {spoken[i] for i in chosen_share([scenes[number][0] for number in spoken], text_share, seed)}
        items: list[Item] = []
        for number, (_, words, frames) in enumerate(scenes):
            order = torch.randperm(words if number in kept else 0, generator=generator).tolist()
            groups = [tuple(order[i : i + conversations]) for i in range(0, len(order), conversations)] or [()]
            repeat = subsets if views is not None and views < frames else 1
            items += [(number, groups[i % len(groups)]) for i in range(max(repeat, len(groups)))]
        self.items = items if vision_only is None else with_vision_share(items, vision_only, generator)
        self.texts = sum(bool(group) for _, group in self.items)
        self.lengths = None if measure is None else [_length(tokens[number], group) for number, group in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ScenePack:
        number, group = self.items[index]
        pack = self.packs[number]
        if self.views is not None and self.views < len(pack.images):
            generator = torch.Generator().manual_seed(name_seed(f"{pack.scene_id}/{index}", self.seed))
            chosen = torch.randperm(len(pack.images), generator=generator)[: self.views].sort().values
            pack = pack.select_views(chosen.tolist())
        return pack.replace(conversations=tuple(pack.conversations[i] for i in group))


def _tokens(pack: ScenePack, measure: Collator, views: int | None) -> tuple[int, list[int]]:
    """Tokens of a scene's prefix, and of each of its conversations."""
    shown = len(pack.images) if views is None else min(views, len(pack.images))
    return len(measure.prefix_ids(shown)), [sum(map(len, measure.conversation_ids(c))) for c in pack.conversations]


def _length(tokens: tuple[int, list[int]], group: tuple[int, ...]) -> int:
    prefix, conversations = tokens
    return prefix + sum(conversations[i] for i in group)


def nearest(share: float, total: int) -> int:
    """How many of ``total`` a share is: the nearest whole number, halves up, decimals as they are written."""
    return math.floor(Fraction(str(share)) * total + Fraction(1, 2))


def chosen_share(names: Sequence[str], share: float, seed: int) -> list[int]:
    """Which entries belong to a share of them: exactly `nearest` many, chosen by a digest of seed and name.

    The choice does not depend on the order, and a larger share holds a smaller one. Adding names changes it only
    as far as the exact number demands: every name keeps its rank among the old ones.
    """
    digests = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    ranked = sorted(range(len(names)), key=lambda i: (digests[i], i))
    return sorted(ranked[: nearest(share, len(names))])


def with_vision_share(items: Sequence[Item], share: float, generator: torch.Generator) -> list[Item]:
    """Items with words, each once, then as many without as make up the share of all.

    The vision-only ones are those that are there, in shuffled rounds (each is used equally often, to one); where
    there are none, the scenes with words are shown without them.

    Raises:
        RecipeError: no item has words, but the share leaves room for them.
    """
    texts, silent = [item for item in items if item[1]], [item for item in items if not item[1]]
    if share >= 1:
        return silent or [(number, ()) for number in sorted({number for number, _ in texts})]
    if not texts:
        raise RecipeError(
            f"data.vision_only is {share}, so {1 - share:g} of the samples should have words, but no scene has any; "
            "add annotated scenes, or set data.vision_only to 1 or leave it out"
        )
    exact = Fraction(str(share))
    wanted = math.floor(exact * len(texts) / (1 - exact) + Fraction(1, 2))
    pool = silent or [(number, ()) for number in sorted({number for number, _ in texts})]
    made: list[Item] = []
    while len(made) < wanted:
        order = torch.randperm(len(pool), generator=generator).tolist()
        made += [pool[i] for i in order[: wanted - len(made)]]
    return [*texts, *made]


class ShuffledSampler(EpochOrder):
    """All items, shuffled anew in every epoch."""

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.randperm(self.total, generator=generator).tolist()


class EvenSampler(EpochOrder):
    """Shuffled items with the vision-only ones spread evenly: any n in a row hold their share of n, to one.

    The order depends on the seed and the epoch alone: it is the same on every rank and after a resume. A step's
    scenes are neighbours in it (see `stereopsis.packs.batch_sampler`), so that every optimiser step has the share, to
    one scene within an epoch.

    Args:
        dataset: its items with words come first (``vision_only`` is given).
        seed: of the order.
    """

    def __init__(self, dataset: PackDataset, seed: int) -> None:
        super().__init__(len(dataset), seed)
        self.texts = dataset.texts

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(name_seed(f"epoch {self.epoch}", self.seed))
        texts = iter(torch.randperm(self.texts, generator=generator).tolist())
        silent = iter((self.texts + torch.randperm(self.total - self.texts, generator=generator)).tolist())
        rest = self.total - self.texts
        for index in range(self.total):
            turn = (index + 1) * rest // self.total > index * rest // self.total
            yield next(silent if turn else texts)
