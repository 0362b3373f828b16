"""The released models' forward pass, written a second time: plain torch on tensors in the official layout.

Nothing of the package is used here. What is computed follows docs/papers.md step by step, slowly
where that is clearer; float64 throughout, except where every known implementation takes float32 (the tables of sines
and cosines), so that the package can be held against it to far more digits than float32 has.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

LOW, HIGH = (-15.0, -15.0, -5.0), (15.0, 15.0, 5.0)
TOWER = "model.vision_tower.vision_tower.vision_model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """A small model whose sizes relate as the released ones do.

    30 pixels with patches of 4 are 7 x 7 patches and 2 pixels over, pooled to 4 x 4 tokens of 7 pixels, as 384 pixels
    with patches of 14 are 27 x 27 and 6 over, pooled to 14 x 14 of 27. The tower keeps its last layer in the file
    where ``spare_layer`` is set. A third of the width is odd.
    """

    image: int = 30
    patch: int = 4
    tower_width: int = 24
    tower_inner: int = 40
    tower_layers: int = 2
    tower_heads: int = 3
    width: int = 64
    inner: int = 72
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    theta: float = 50000.0
    epsilon: float = 1e-5
    rows: int = 340
    spare_layer: bool = False

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.image // self.patch

    @property
    def tokens(self) -> int:
        """Tokens along a side of a view."""
        return math.ceil(self.side / 2)


def random_release(sizes: Sizes, seed: int = 0) -> dict[str, Tensor]:
    """Every weight of a Video-3D-LLM checkpoint, random, under the official names."""
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}

    def linear(name: str, out: int, size: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = torch.randn(out, size, generator=draw) * (1.5 / size**0.5)
        if bias:
            found[f"{name}.bias"] = torch.randn(out, generator=draw) * 0.2

    def norm(name: str, size: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = 1 + 0.3 * torch.randn(size, generator=draw)
        if bias:
            found[f"{name}.bias"] = 0.3 * torch.randn(size, generator=draw)

    wide, dim = sizes.tower_width, sizes.width
    found[f"{TOWER}.embeddings.patch_embedding.weight"] = torch.randn(wide, 3, *[sizes.patch] * 2, generator=draw) * 0.2
    found[f"{TOWER}.embeddings.patch_embedding.bias"] = torch.randn(wide, generator=draw) * 0.2
    found[f"{TOWER}.embeddings.position_embedding.weight"] = torch.randn(sizes.side**2, wide, generator=draw)
    for number in range(sizes.tower_layers + sizes.spare_layer):
        layer = f"{TOWER}.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{part}", wide, wide)
        norm(f"{layer}.layer_norm1", wide)
        norm(f"{layer}.layer_norm2", wide)
        linear(f"{layer}.mlp.fc1", sizes.tower_inner, wide)
        linear(f"{layer}.mlp.fc2", wide, sizes.tower_inner)
    norm(f"{TOWER}.post_layernorm", wide)
    linear("model.mm_projector.0", dim, wide)
    linear("model.mm_projector.2", dim, dim)
    found["model.image_newline"] = torch.randn(dim, generator=draw)
    found["model.embed_tokens.weight"] = torch.randn(sizes.rows, dim, generator=draw)
    group = dim // sizes.heads * sizes.kv_heads
    for number in range(sizes.layers):
        layer = f"model.layers.{number}"
        for part, out in (("q_proj", dim), ("k_proj", group), ("v_proj", group)):
            linear(f"{layer}.self_attn.{part}", out, dim)
        linear(f"{layer}.self_attn.o_proj", dim, dim, bias=False)
        for part, out, size in (("gate", sizes.inner, dim), ("up", sizes.inner, dim), ("down", dim, sizes.inner)):
            linear(f"{layer}.mlp.{part}_proj", out, size, bias=False)
        norm(f"{layer}.input_layernorm", dim, bias=False)
        norm(f"{layer}.post_attention_layernorm", dim, bias=False)
    norm("model.norm", dim, bias=False)
    linear("lm_head", sizes.rows, dim, bias=False)
    for head in ("ground_head_obj", "ground_head_query"):
        linear(f"{head}.0", dim, dim)
        norm(f"{head}.2", dim)
        linear(f"{head}.3", dim, dim)
    found["ground_head_zero_target"] = torch.randn(dim, generator=draw)
    return found


class ReleasedForward:
    """The forward pass, a function per line of the table.

    Args:
        weights: under the official names.
        sizes: what config.json and the tower's config say.
    """

    def __init__(self, weights: dict[str, Tensor], sizes: Sizes) -> None:
        self.weights, self.sizes = {name: value.double() for name, value in weights.items()}, sizes

    def _linear(self, name: str, x: Tensor) -> Tensor:
        made = x @ self.weights[f"{name}.weight"].T
        return made + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else made

    def _layer_norm(self, name: str, x: Tensor, epsilon: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _rms_norm(self, name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.sizes.epsilon).sqrt() * self.weights[f"{name}.weight"]

    # the vision tower -------------------------------------------------------------------------------------------------

    def tower(self, images: Tensor) -> Tensor:
        """SigLIP on uint8 images [views 3 side side]: the output of its last but one layer, no norm behind it."""
        pixels = (images.double() / 255 - 0.5) / 0.5
        name = f"{TOWER}.embeddings.patch_embedding"
        x = nn.functional.conv2d(
            pixels, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride=self.sizes.patch
        )
        x = x.flatten(2).transpose(1, 2) + self.weights[f"{TOWER}.embeddings.position_embedding.weight"]
        for number in range(self.sizes.tower_layers):
            layer = f"{TOWER}.encoder.layers.{number}"
            x = x + self._looks(layer, self._layer_norm(f"{layer}.layer_norm1", x, 1e-6))
            inner = self._linear(f"{layer}.mlp.fc1", self._layer_norm(f"{layer}.layer_norm2", x, 1e-6))
            inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
            x = x + self._linear(f"{layer}.mlp.fc2", inner)
        return x

    def _looks(self, layer: str, x: Tensor) -> Tensor:
        query, key, value = (
            self._linear(f"{layer}.self_attn.{part}_proj", x).unflatten(-1, (self.sizes.tower_heads, -1))
            for part in "qkv"
        )
        scores = torch.einsum("vqhd,vkhd->vhqk", query, key) / query.shape[-1] ** 0.5
        seen = torch.einsum("vhqk,vkhd->vqhd", scores.softmax(-1), value).flatten(2)
        return self._linear(f"{layer}.self_attn.out_proj", seen)

    def project(self, features: Tensor) -> Tensor:
        """Two layers with the exact GELU."""
        inner = self._linear("model.mm_projector.0", features)
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return self._linear("model.mm_projector.2", inner)

    def pool(self, projected: Tensor) -> Tensor:
        """Bilinear, without aligned corners: [views side * side dim] to [views tokens * tokens dim], by hand."""
        fine, coarse = self.sizes.side, self.sizes.tokens
        rows = torch.zeros(coarse, fine, dtype=torch.float64)
        for row in range(coarse):
            place = max((row + 0.5) * fine / coarse - 0.5, 0.0)
            below = int(place)
            rows[row, below] += 1 - (place - below)
            rows[row, min(below + 1, fine - 1)] += place - below
        grid = projected.unflatten(1, (fine, fine))
        return torch.einsum("rf,cg,vfgd->vrcd", rows, rows, grid).flatten(1, 2)

    # where tokens look ------------------------------------------------------------------------------------------------

    def patch_coordinates(self, points: Tensor) -> Tensor:
        """[views side side 3] to [views tokens * tokens 3]: the mean of each token's pixels, what is over left out."""
        pixels, count = self.sizes.image // self.sizes.tokens, self.sizes.tokens
        cells = [
            points[:, row * pixels : (row + 1) * pixels, col * pixels : (col + 1) * pixels].double().mean((1, 2))
            for row in range(count)
            for col in range(count)
        ]
        return torch.stack(cells, dim=1).float()

    def encode(self, points: Tensor) -> Tensor:
        """The 3D encoding of [..., 3] points."""
        low, high = torch.tensor(LOW), torch.tensor(HIGH)
        steps = ((points.float().minimum(high).maximum(low) - low) / 0.1).round()
        number = self.sizes.width // 3
        encoded = torch.zeros(*points.shape[:-1], self.sizes.width)
        frequencies = 10000 ** (2 * (torch.arange(number, dtype=torch.float32) // 2) / number)
        for axis in range(3):
            angles = steps[..., axis, None] / frequencies
            for i in range(number):
                wave = torch.sin if i % 2 == 0 else torch.cos
                encoded[..., axis * number + i] = wave(angles[..., i].contiguous())
        return encoded.double()

    # the row ----------------------------------------------------------------------------------------------------------

    def visual_sequence(self, images: Tensor, points: Tensor, hidden: tuple[int, ...] = ()) -> Tensor:
        """[length dim]: views one after the other, in each the rows of tokens, behind every row the newline.

        Ross3D's hidden views are the mask token in every cell, and keep their encodings.
        """
        tokens = self.pool(self.project(self.tower(images)))
        for view in hidden:
            tokens[view] = self.weights["model.mask_token"]
        tokens = tokens + self.encode(self.patch_coordinates(points))
        found, count = [], self.sizes.tokens
        for view in tokens:
            for row in range(count):
                found += [*view[row * count : (row + 1) * count], self.weights["model.image_newline"]]
        return torch.stack(found)

    def row(self, before: list[int], visual: Tensor, behind: list[int], points: dict[int, Tensor]) -> Tensor:
        """Embeddings of words, views, words; ``points``: of which word behind the views is the <coord> of which one."""
        table = self.weights["model.embed_tokens.weight"]
        words = table[torch.tensor(behind)].clone()
        for place, point in points.items():
            words[place] += self.encode(point)
        return torch.cat([table[torch.tensor(before)], visual, words])

    def decode(self, x: Tensor) -> Tensor:
        """Qwen2: last hidden states [length dim] of embeddings [length dim]."""
        size = self.sizes.width // self.sizes.heads
        rates = 1.0 / self.sizes.theta ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size)
        angles = torch.arange(len(x)).float()[:, None] * rates
        cosine, sine = (wave.double().repeat(1, 2)[:, None] for wave in (angles.cos(), angles.sin()))

        def turned(states: Tensor) -> Tensor:
            first, second = states.chunk(2, dim=-1)
            return states * cosine + torch.cat([-second, first], dim=-1) * sine

        future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        for number in range(self.sizes.layers):
            layer = f"model.layers.{number}"
            normed = self._rms_norm(f"{layer}.input_layernorm", x)
            query, key, value = (
                self._linear(f"{layer}.self_attn.{part}_proj", normed).unflatten(-1, (-1, size)) for part in "qkv"
            )
            shared = self.sizes.heads // self.sizes.kv_heads
            key, value = (part.repeat_interleave(shared, dim=1) for part in (turned(key), value))
            scores = torch.einsum("qhd,khd->hqk", turned(query), key) / size**0.5
            weights = scores.masked_fill(future, -torch.inf).softmax(-1)
            seen = torch.einsum("hqk,khd->qhd", weights, value).flatten(1)
            x = x + self._linear(f"{layer}.self_attn.o_proj", seen)
            normed = self._rms_norm(f"{layer}.post_attention_layernorm", x)
            gate = self._linear(f"{layer}.mlp.gate_proj", normed)
            inner = gate * torch.sigmoid(gate) * self._linear(f"{layer}.mlp.up_proj", normed)
            x = x + self._linear(f"{layer}.mlp.down_proj", inner)
        return self._rms_norm("model.norm", x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all words."""
        return self._linear("lm_head", hidden)

    # pointing ---------------------------------------------------------------------------------------------------------

    def object_features(self, images: Tensor, points: Tensor, boxes: Tensor, last: Tensor | None = None) -> Tensor:
        """[boxes dim]: mean projected token of the patches inside a box, + the encoding of its centre.

        Args:
            images: [views 3 side side] uint8.
            points: [views side side 3] of every pixel.
            boxes: [boxes 6].
            last: hidden states of the visual sequence; given, 3DRS's candidates: the mean of the above and of the last
                states of the tokens of which an eighth (rounded down) of the pixels lies inside.
        """
        patches = self.project(self.tower(images)).unflatten(1, (self.sizes.side, self.sizes.side))
        found = self._means(patches, points, boxes, 0.5) + self.encode(boxes[:, :3])
        if last is None:
            return found
        count = self.sizes.tokens
        tokens = last.view(len(images), count, count + 1, -1)[:, :, :count]
        return (found + self._means(tokens, points, boxes, 0.125)) / 2

    def _means(self, tokens: Tensor, points: Tensor, boxes: Tensor, share: float) -> Tensor:
        views, side = tokens.shape[:2]
        pixels = self.sizes.image // side
        found = torch.zeros(len(boxes), tokens.shape[-1], dtype=torch.float64)
        for number, box in enumerate(boxes):
            low, high = box[:3] - box[3:] / 2, box[:3] + box[3:] / 2
            inside = ((points >= low) & (points <= high)).all(-1)
            seen = [
                tokens[view, row, col]
                for view in range(views)
                for row in range(side)
                for col in range(side)
                if inside[view, row * pixels : (row + 1) * pixels, col * pixels : (col + 1) * pixels].sum()
                >= int(pixels * pixels * share)
            ]
            if seen:
                found[number] = torch.stack(seen).mean(0)
        return found

    def scores(self, query: Tensor, objects: Tensor) -> Tensor:
        """[boxes + 1] cosines over 0.07 of a <ground> token's last state with the candidates, the zero target last."""
        candidates = torch.cat([objects, self.weights["ground_head_zero_target"][None]])
        keys, query = self._head("ground_head_obj", candidates), self._head("ground_head_query", query)
        return keys @ query / keys.norm(dim=-1) / query.norm() / 0.07

    def _head(self, name: str, x: Tensor) -> Tensor:
        inner = self._layer_norm(f"{name}.2", self._linear(f"{name}.0", x).clamp(min=0), 1e-5)
        return self._linear(f"{name}.3", inner)

    @staticmethod
    def grounding_loss(scores: Tensor, positives: tuple[int, ...]) -> Tensor:
        """-log of the right candidates' share; without a right one, of the zero target's."""
        shares = scores.exp() / scores.exp().sum()
        return -shares[list(positives or (len(scores) - 1,))].sum().log()
