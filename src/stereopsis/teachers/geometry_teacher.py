"""The feature teacher that ships with the package: a multi-view geometry network trained on procedural rooms."""

import dataclasses
import functools
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import stereopsis.assets
from stereopsis.errors import CheckpointError
from stereopsis.reading import read_json, read_tensors
from stereopsis.teachers.features import FeatureTeacher, TeacherViews, ViewFeatures
from stereopsis.teachers.geometry_network import GeometryConfig, GeometryNetwork
from stereopsis.weights.fingerprint import fingerprint

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class GeometryTeacher(FeatureTeacher):
    """Last tokens of a `GeometryNetwork`; sees the images of all views together, and nothing else.

    A cell's feature is the mean of the network's tokens over it: per-view attention's output and then global
    attention's, as VGGT's aggregator gives them and 3DRS uses them. The first view is the frame of reference, so
    its features may change when another view comes first; the order of the others does not matter.

    Args:
        network: kept frozen, in evaluation mode.
    """

    name = "rooms_geometry"

    def __init__(self, network: GeometryNetwork) -> None:
        self.network = network.eval().requires_grad_(False)
        self.channels = 2 * network.config.width

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> "GeometryTeacher":
        """Load a folder that `scripts/train_geometry_teacher.py` wrote; the one that ships by default.

        Raises:
            CheckpointError: a file is missing, or does not fit.
        """
        return cls(load_geometry_network(rooms_geometry_folder() if folder is None else Path(folder)))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 over the weights and what is done to the images."""
        prepared = {"resize": "bilinear antialias", "range": [0, 1], "cells": "mean of tokens", "version": 1}
        return fingerprint({"kind": self.name, **prepared, **dataclasses.asdict(self.network.config)}, self.network)

    @torch.no_grad()
    def encode(self, views: TeacherViews) -> ViewFeatures:
        """Features of every cell of every view; all cells are valid, as no depth is needed."""
        device = views.images.device
        self.network.to(device)
        size, images = self.network.config.image_size, views.images.float() / 255
        if images.shape[-2:] != (size, size):
            images = functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        with torch.autocast(device.type, enabled=False):
            tokens = self.network.tokens(images.clamp(0, 1)[None]).patches[0]
        cells = functional.adaptive_avg_pool2d(tokens.permute(0, 3, 1, 2), (views.rows, views.cols))
        valid = torch.ones(len(images), views.rows, views.cols, dtype=torch.bool, device=device)
        return ViewFeatures(features=cells.permute(0, 2, 3, 1).contiguous(), valid=valid)


def rooms_geometry_folder() -> Path:
    """Where the network that ships with this package lies."""
    return Path(stereopsis.assets.__file__).parent / "rooms_geometry"


def load_geometry_network(folder: Path) -> GeometryNetwork:
    """A network in float32 from config.json and model.safetensors.

    Raises:
        CheckpointError: a file is missing, or does not fit.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} holds no {name}; expected a folder that scripts/train_geometry_teacher.py wrote"
            )
    try:
        content = read_json(folder / CONFIG)
        config = GeometryConfig(**{**content, "stem": tuple(content["stem"])})
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} describes no geometry network ({error}); take the file that belongs to the weights"
        ) from error
    network = GeometryNetwork(config)
    _load(network, folder / WEIGHTS)
    return network


def _load(network: nn.Module, path: Path) -> None:
    """Every tensor must be there, fit, and be used."""
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in read_tensors(path).items()})
    except Exception as error:  # safetensors and torch raise several kinds
        raise CheckpointError(
            f"{path} does not fit the network of its {CONFIG}: {error}; take both from the same folder"
        ) from error
