"""Small regions of a mask taken away, by an exact rule."""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from segnet.regions.labelling import Regions, find_regions


def clean_up(mask: NDArray[np.uint8], *, min_region: int = 0, fill_holes: int = 0) -> NDArray[np.uint8]:
    """The mask (H, W) without regions of fewer than `min_region` pixels, and without holes of fewer than `fill_holes`.

    A hole is a region, of whatever class, that lies inside of a single other one and does not touch the border of the picture.
    Regions are taken away one after the other, the smallest first, of equal ones the first in reading order. Each becomes part of
    the class with which it shares the most sides of pixels, of equally many the one with the lower id, and so of the regions of
    that class around it. A region that has grown so is judged by its new size.
    """
    regions = find_regions(mask)
    if (min_region <= 1 and fill_holes <= 1) or int(regions.sizes.min()) >= max(min_region, fill_holes):
        return mask
    graph = _Graph(regions)
    waiting = [(size, number) for number, size in enumerate(graph.sizes) if size < max(min_region, fill_holes)]
    heapq.heapify(waiting)
    while waiting:
        size, number = heapq.heappop(waiting)
        if graph.sizes[number] != size or not graph.sides[number]:
            continue  # it has grown, is part of another, or is the whole picture
        is_hole = len(graph.sides[number]) == 1 and not graph.at_border[number]
        if size < min_region or (is_hole and size < fill_holes):
            for changed in graph.dissolve(number):
                if graph.sizes[changed] < max(min_region, fill_holes):
                    heapq.heappush(waiting, (graph.sizes[changed], changed))
    return graph.class_of_region()[regions.labels]


class _Graph:
    """The regions and the sides of pixels that they share. A region that becomes part of another has no sides and size -1."""

    def __init__(self, regions: Regions) -> None:
        labels, count = regions.labels, len(regions.sizes)
        self.classes = regions.classes.tolist()
        self.sizes = regions.sizes.tolist()
        self.at_border = [False] * count
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            for number in np.unique(edge).tolist():
                self.at_border[number] = True
        self.sides: list[dict[int, int]] = [{} for _ in range(count)]  # of each region: neighbour -> shared sides of pixels
        self.part_of = list(range(count))
        for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            apart = one != other
            pairs, times = np.unique(one[apart].astype(np.int64) * count + other[apart], return_counts=True)
            for a, b, sides in zip((pairs // count).tolist(), (pairs % count).tolist(), times.tolist(), strict=True):
                self.sides[a][b] = self.sides[a].get(b, 0) + sides
                self.sides[b][a] = self.sides[b].get(a, 0) + sides

    def dissolve(self, number: int) -> set[int]:
        """Give a region the class that borders it longest, and join it with its neighbours of that class.

        The regions whose size or neighbours have changed.
        """
        shared = defaultdict[int, int](int)
        for other, sides in self.sides[number].items():
            shared[self.classes[other]] += sides
        chosen = max(shared, key=lambda class_id: (shared[class_id], -class_id))
        around = [other for other in self.sides[number] if self.classes[other] == chosen]
        changed = set[int]()
        joined = number
        for other in around:
            few, many = sorted((joined, other), key=lambda region: len(self.sides[region]))
            changed |= self._join(few, many)
            joined = many
        self.classes[joined] = chosen
        return (changed | {joined}) - {number, *around} | {joined}

    def _join(self, few: int, many: int) -> set[int]:
        """Make region `few` a part of `many`; the neighbours of `few`, which have another neighbour now."""
        neighbours = self.sides[few]
        neighbours.pop(many, None)
        self.sides[many].pop(few, None)
        for other, sides in neighbours.items():
            del self.sides[other][few]
            self.sides[other][many] = self.sides[many][other] = self.sides[many].get(other, 0) + sides
        self.sides[few] = {}
        self.sizes[many] += self.sizes[few]
        self.sizes[few] = -1
        self.at_border[many] |= self.at_border[few]
        self.part_of[few] = many
        return set(neighbours)

    def class_of_region(self) -> NDArray[np.uint8]:
        """(N,): the class of each region that there was at the beginning."""
        root = np.array(self.part_of)
        while not np.array_equal(above := root[root], root):
            root = above
        return np.array(self.classes, dtype=np.uint8)[root]
