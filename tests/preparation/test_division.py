"""The division of pictures: equal shares of each class, whole groups, and old members in their places."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from divisions import largest_deviation
from hypothesis import given
from hypothesis import strategies as st

from segnet.preparation.division import Pool, divide


def random_pool(seed: int, count: int = 200, groups: int = 0) -> Pool:
    """Classes from common to rare; a picture has a class or not."""
    rng = np.random.default_rng(seed)
    there = rng.random((count, 6)) < [0.9, 0.6, 0.3, 0.2, 0.1, 0.05]
    pixels = (there * rng.gamma(1.0, 1000, (count, 6))).astype(np.int64)
    ids = [f"{index:04d}" for index in range(count)]
    return Pool(ids, pixels, [f"g{index % groups}" for index in range(count)] if groups else ids)


@pytest.mark.parametrize("seed", range(5))
def test_classes_have_the_same_share_in_every_part(seed: int) -> None:
    pool = random_pool(seed)
    parts = divide(pool, {"train": 0.8, "val": 0.2}, {}, seed)
    assert sorted([*parts["train"], *parts["val"]]) == pool.ids
    assert abs(len(parts["val"]) - 40) <= 2
    ours = largest_deviation(pool.pixels, np.isin(pool.ids, parts["val"]))
    order = np.random.default_rng(seed).permutation(200)
    by_chance = largest_deviation(pool.pixels, np.isin(np.arange(200), order[:40]))
    assert ours < min(0.25, by_chance)


def test_five_parts_share_the_rarest_class() -> None:
    pool = random_pool(1)
    pool.pixels[:, 5] = 0
    pool.pixels[[3, 50, 70, 110, 190], 5] = [1, 10, 1000, 5, 300]  # as many pictures as parts
    parts = divide(pool, {f"val_{fold}": 0.2 for fold in range(5)}, {}, 0)
    assert all(set(members) & {"0003", "0050", "0070", "0110", "0190"} for members in parts.values())
    assert [len(members) for members in parts.values()] == pytest.approx([40] * 5, abs=2)


def test_a_class_that_two_pictures_show_is_in_both_parts() -> None:
    pool = random_pool(2)
    pool.pixels[:, 5] = 0
    pool.pixels[[20, 60], 5] = 700
    parts = divide(pool, {"train": 0.8, "val": 0.2}, {}, 0)
    assert all(set(members) & {"0020", "0060"} for members in parts.values())


@given(seed=st.integers(0, 10**6), groups=st.integers(5, 40), val=st.floats(0.1, 0.5))
def test_every_picture_has_one_part_and_every_group_too(seed: int, groups: int, val: float) -> None:
    pool = random_pool(seed, 80, groups)
    parts = divide(pool, {"train": 0.9 - val, "val": val, "test": 0.1}, {}, seed)
    assert Counter(name for members in parts.values() for name in members) == Counter(pool.ids)
    group_of = dict(zip(pool.ids, pool.groups, strict=True))
    homes = Counter(group for members in parts.values() for group in {group_of[name] for name in members})
    assert set(homes.values()) == {1}


@given(seed=st.integers(0, 10**6), groups=st.sampled_from([0, 17]), first=st.integers(20, 79))
def test_pictures_that_come_later_move_no_other(seed: int, groups: int, first: int) -> None:
    whole = random_pool(seed, 80, groups)
    before = Pool(whole.ids[:first], whole.pixels[:first], whole.groups[:first])
    shares = {"train": 0.7, "val": 0.3}
    old = divide(before, shares, {}, seed)
    new = divide(whole, shares, old, seed)
    assert all(new[name][: len(old[name])] == old[name] for name in shares)
    group_of = dict(zip(whole.ids, whole.groups, strict=True))
    assert not {group_of[name] for name in new["train"]} & {group_of[name] for name in new["val"]}
    shuffled = np.random.default_rng(seed).permutation(first)
    other_order = Pool([whole.ids[i] for i in shuffled], whole.pixels[shuffled], [whole.groups[i] for i in shuffled])
    assert divide(other_order, shares, {}, seed) == old
