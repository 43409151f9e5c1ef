"""Clean pictures to denoise, and a tiny network for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segnet.config.loading import override_config
from segnet.config.sections import Config


def write_clean_pictures(root: Path, channels: int = 1, size: tuple[int, int] = (24, 32)) -> Path:
    """A data folder without masks: 6 train and 3 val pictures of smooth waves, each of its own direction."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    (root / "images").mkdir(parents=True)
    for split, count in (("train", 6), ("val", 3)):
        names = [f"{split}_{index}" for index in range(count)]
        for number, name in enumerate(names):
            angle = number + 10 * (split == "val")
            waves = [np.sin((rows * np.cos(angle + c) + columns * np.sin(angle + c)) / 4) for c in range(channels)]
            pixels = (128 + 90 * np.stack(waves, axis=2)).round().astype(np.uint8)
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(root / "images" / f"{name}.png")
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def write_noisy_pictures(root: Path, sigma: float = 20, folder: str = "noisy") -> None:
    """A noisy copy of each picture."""
    (root / folder).mkdir()
    for path in sorted((root / "images").glob("*.png")):
        clean = np.asarray(Image.open(path)).astype(float)
        noisy = clean + np.random.default_rng(len(path.stem)).normal(0, sigma, clean.shape)
        Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(root / folder / path.name)


def denoise_config_for(root: Path, *changes: str) -> Config:
    """Two stages of widths 4 and 8 on the grey pictures in `root`: 2 epochs of 3 steps, on the CPU, without workers."""
    config = Config.model_validate(
        {
            "device": "cpu",
            "task": "denoise",
            "model": {
                "encoder": ({"widths": (4,)}, {"widths": (8,)}),
                "decoder": ({"widths": (4,)}, {"widths": (4,)}),
                "output": "residual",
            },
            "data": {"root": str(root), "classes": "none", "channels": 1, "workers": 0},
            "augment": {"crop_size": (16, 16), "scale": (1.0, 1.0)},
            "optim": {"name": "adamw", "lr": 0.003},
            "train": {"epochs": 2.0, "batch_size": 2, "precision": "float32", "log_every_steps": 1},
            "inference": {"precision": "float32"},
        }
    )
    return override_config(config, changes)
