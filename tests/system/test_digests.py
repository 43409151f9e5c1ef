"""Seeds are spread, and depend on every part."""

from __future__ import annotations

from segnet.system.digests import derive_seed


def test_seeds_are_spread_and_depend_on_every_part() -> None:
    assert derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
    parts = [(), (0,), ("0", ""), (0, 0), (0, 1), (1, 0), (10, "order", 1), (1, "order", 1), ("order", 1), (1, "order"), ("01",)]
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
