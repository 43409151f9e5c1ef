"""Several networks whose answers are averaged, such as those of the folds of a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from segnet.inference.exported import Network
from segnet.models.encoder_decoder import EncoderDecoder


class Ensemble(nn.Module):
    """Networks that see the same windows of a picture; prediction averages their values, such as probabilities.

    Windows fit the one that needs most: the largest field of view and stride. It has no forward of its own.
    """

    too_many_pixels: float = math.inf  # as in EncoderDecoder

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.architecture = cast(EncoderDecoder, members[0]).architecture
        self.in_channels = members[0].in_channels
        self.num_classes = members[0].num_classes
        self.field_of_view = max(member.field_of_view for member in members)
        self.total_stride = math.lcm(*(member.total_stride for member in members))

    @property
    def device(self) -> torch.device:
        """That of the first network."""
        return cast(Network, self.members[0]).device


def members_of(model: Network) -> list[Network]:
    """The networks of an ensemble; a single network itself."""
    return [cast(Network, member) for member in model.members] if isinstance(model, Ensemble) else [model]


def as_one(members: Sequence[Network]) -> Network:
    """The ensemble of networks, with the interface of a single one in prediction; a single network stays itself."""
    return cast(EncoderDecoder, Ensemble(members)) if len(members) > 1 else members[0]
