"""Objects of one image pasted into another: random pixels of a class, connected components."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_pixel_of_some_class(mask: Tensor, odds: Tensor) -> tuple[int, int] | None:
    """(row, column) of a pixel of a class of the mask (H, W), which is drawn by `odds` (K,); None where all odds are 0."""
    present = torch.bincount(mask.flatten(), minlength=256)[: len(odds)] > 0
    odds = odds * present
    if not odds.any():
        return None
    return draw_pixel(mask == int(torch.multinomial(odds, 1)))


def draw_pixel(marked: Tensor) -> tuple[int, int]:
    """(row, column) of one of the True pixels of (H, W), each with the same probability; there must be one."""
    places = marked.flatten().nonzero()
    place = int(places[torch.randint(len(places), ())])
    return divmod(place, marked.shape[1])


def paste_object(image: Tensor, mask: Tensor, donor: Tensor, donor_mask: Tensor, class_id: int) -> tuple[Tensor, Tensor]:
    """Copies onto which an object of the donor, a random connected component of its class, is pasted at its own place.

    Image and mask themselves where the donor, of the same size, shows no pixel of the class.
    """
    marked = donor_mask == class_id
    if not marked.any():
        return image, mask
    rows, columns = (_span(marked.any(dim)) for dim in (1, 0))  # most objects are small, and what follows costs time by area
    marked = marked[rows, columns]
    component = connected_component(marked, draw_pixel(marked))
    image, mask = image.clone(), mask.clone()
    for target, source in ((image, donor), (mask, donor_mask)):
        target[..., rows, columns] = torch.where(component, source[..., rows, columns], target[..., rows, columns])
    return image, mask


def _span(marked: Tensor) -> slice:
    """The smallest slice of (N,) bool that holds all its True values; there must be one."""
    places = marked.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1)


def connected_component(marked: Tensor, pixel: tuple[int, int]) -> Tensor:
    """(H, W) bool: the pixels that are connected with `pixel` (row, column) over edges of True pixels of `marked` (H, W).

    It spreads along whole rows and whole columns in turns, so the number of passes grows with the bends of the component alone.
    """
    in_rows, in_columns = _runs(marked), _runs(marked.T)
    reached = torch.zeros_like(marked)
    reached[pixel] = True
    known = 0
    while (count := int(reached.sum())) > known:
        known = count
        reached = _spread(reached, in_rows)
        reached = _spread(reached.T, in_columns).T
    return reached


def _runs(marked: Tensor) -> Tensor:
    """(H, W) int64: for each pixel the number of its run, a longest sequence of equal values within a row of (H, W) bool."""
    begins = torch.ones_like(marked)
    begins[:, 1:] = marked[:, 1:] != marked[:, :-1]
    return begins.flatten().cumsum(0).view(marked.shape)


def _spread(reached: Tensor, runs: Tensor) -> Tensor:
    """(H, W) bool: the pixels of all runs (H, W) that have a pixel in `reached` (H, W)."""
    is_reached = torch.zeros(runs.numel() + 1, dtype=torch.bool)
    is_reached[runs[reached]] = True
    return is_reached[runs]
