"""The division of pictures into parts: balanced by class pixels, groups together, old members kept in place."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pool(NamedTuple):
    """The N pictures to divide."""

    ids: list[str]
    pixels: NDArray[np.int64]  # (N, K) pixels of each class
    groups: list[str]  # the name of each picture's group


def divide(pool: Pool, shares: Mapping[str, float], old: Mapping[str, Sequence[str]], seed: int) -> dict[str, list[str]]:
    """The members of each part of `shares`, which sum to 1, with about its share of every class's pixels and of the pictures.

    The members of `old` stay in their parts, and a group with an old member follows its first one. The other groups are placed
    one by one, those with the rarest class first (Sechidis et al. 2011), within a class the larger before the smaller, by
    powers of two, and then by a hash of seed and group. Each goes to the part whose lack it fills best, in the sense of
    least squares; the last groups of a class go to the parts that have none of it.
    """
    names = list(shares)
    wanted = np.array(list(shares.values()))  # (P,)
    part_of_old = {member: part for part, name in enumerate(names) for member in old.get(name, ())}
    members_of = defaultdict[str, list[int]](list)
    for row, group in enumerate(pool.groups):
        members_of[group].append(row)
    groups = sorted(members_of, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode("utf-8", "surrogatepass")).digest())
    amounts = np.column_stack([pool.pixels, np.ones(len(pool.ids), np.int64)])  # (N, K + 1): the last column counts pictures
    scale = np.maximum(amounts.sum(axis=0), 1)
    lack = np.repeat(wanted[:, None], amounts.shape[1], axis=1)  # (P, K + 1), shares of the whole
    parts = dict[str, int]()  # group -> part
    lists: list[set[str]] = [set() for _ in names]

    def place(rows: Sequence[int], part: int) -> None:
        lack[part] -= amounts[rows].sum(axis=0) / scale
        lists[part].update(pool.ids[row] for row in rows)

    for group in groups:
        rows = members_of[group]
        known = [part_of_old[pool.ids[row]] for row in rows if pool.ids[row] in part_of_old]
        if known:
            parts[group] = known[0]
            for row in rows:
                place([row], part_of_old.get(pool.ids[row], known[0]))
    of_group = np.array([amounts[members_of[group]].sum(axis=0) for group in groups])  # (G, K + 1)
    for column in [*np.argsort(amounts[:, :-1].sum(axis=0), kind="stable").tolist(), amounts.shape[1] - 1]:
        waiting = [row for row, group in enumerate(groups) if group not in parts and of_group[row, column]]
        waiting.sort(key=lambda row: -math.floor(math.log2(of_group[row, column])))  # stable: equal ones stay in hash order
        for position, row in enumerate(waiting):
            share = of_group[row] / scale
            gain = (2 * lack @ share - share @ share) / wanted  # the fall of the squared lacks, relative to the part's share
            without = [part for part in range(len(names)) if lack[part, column] >= wanted[part]]
            if without and len(waiting) - position <= len(without):
                gain[[part for part in range(len(names)) if part not in without]] = -np.inf
            parts[groups[row]] = int(np.argmax(gain))
            place(members_of[groups[row]], parts[groups[row]])
    return {name: in_order(lists[part], old.get(name, ())) for part, name in enumerate(names)}


def in_order(members: set[str], old: Sequence[str]) -> list[str]:
    """`members`: those of the `old` list in its order, then the others, sorted."""
    kept = [name for name in old if name in members]
    return kept + sorted(members - set(kept))


def pixels_of(pool: Pool, members: Sequence[str]) -> NDArray[np.int64]:
    """(K,) pixels of each class in the pictures `members`."""
    chosen = set(members)
    pixels: NDArray[np.int64] = pool.pixels[[row for row, name in enumerate(pool.ids) if name in chosen]].sum(axis=0)
    return pixels
