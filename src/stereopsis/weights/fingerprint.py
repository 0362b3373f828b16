"""Which weights, and how they are used, as one short text: what a cache or a record was made with."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def fingerprint(facts: Mapping[str, Any], module: nn.Module | None = None) -> str:
    """Sha256 over plain JSON values and, where there is a network, its named weights and buffers."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    if module is not None:
        for key, tensor in sorted(module.state_dict().items()):
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()
