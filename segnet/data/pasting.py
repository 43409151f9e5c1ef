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
    component = connected_component(marked, draw_pixel(marked))
    return torch.where(component, donor, image), torch.where(component, donor_mask, mask)


def connected_component(marked: Tensor, pixel: tuple[int, int]) -> Tensor:
    """(H, W) bool: the pixels that are connected with `pixel` (row, column) over edges of True pixels of `marked` (H, W).

    It spreads along whole rows and whole columns in turns, so the number of passes grows with the bends of the component alone.
    """
    reached = torch.zeros_like(marked)
    reached[pixel] = True
    known = 0
    while (count := int(reached.sum())) > known:
        known = count
        reached = _spread_along_rows(reached, marked)
        reached = _spread_along_rows(reached.T, marked.T).T
    return reached


def _spread_along_rows(reached: Tensor, marked: Tensor) -> Tensor:
    """`reached` and all pixels that lie in the same row within the same run of True pixels of `marked`."""
    begins = torch.ones_like(marked)
    begins[:, 1:] = marked[:, 1:] != marked[:, :-1]
    runs = begins.flatten().cumsum(0)  # the number of the run of each pixel
    is_reached = torch.zeros(int(runs[-1]) + 1, dtype=torch.bool)
    is_reached[runs[reached.flatten()]] = True
    return is_reached[runs].view(marked.shape)
