"""The samples of denoising: clean pictures with noise that is drawn, or recorded noisy pictures beside them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import Bands, NoiseConfig
from segnet.data.cache import FOLDER, DecodedSamples, Undecoded, open_decoded
from segnet.data.colors import change_colors
from segnet.data.dataset import Sample, SplitDataset
from segnet.data.images import open_image, pixel_count, require_8_bits
from segnet.data.layout import split_path
from segnet.data.listing import names_by_stem
from segnet.data.sample_files import find_unlabelled_pictures, merge_alike
from segnet.data.sampler import SampleKey
from segnet.data.split_lists import SHOWN, read_split
from segnet.metrics.psnr import to_8_bits
from segnet.system.digests import derive_seed, digest_files, digest_of
from segnet.system.errors import UserError, data_error, raise_first
from segnet.system.files import is_inside
from segnet.tasks.noise import add_noise, draw_level, scored_levels


class CleanPictures(SplitDataset):
    """The pictures of a split, and the recorded noisy ones where `noise.folder` names them.

    The constructor raises UserError (data) for faults of the list, and for files that are missing or lie elsewhere; reading a
    sample raises it for faults in the content of its files.
    """

    def __init__(self, root: Path, split: str, noise: NoiseConfig, bands: Bands, *, seed: int = 0) -> None:
        super().__init__(root, split, bands=bands, seed=seed)
        self.noise = noise
        self.names = read_split(root, split)
        pictures, faults = find_unlabelled_pictures(root, self.names)
        recorded: list[Path] = []
        if noise.folder:
            if not (root / noise.folder).is_dir():
                raise data_error(root / noise.folder, "noise.folder: no such folder", "name the folder of the noisy pictures")
            found = [_recorded_picture(root, noise.folder, name) for name in self.names]
            recorded = [each for each in found if isinstance(each, Path)]
            faults += [each for each in found if isinstance(each, UserError)]
        raise_first(merge_alike(faults, lambda _: split_path(root, split)), limit=SHOWN)
        self.pictures = [pictures[name] for name in self.names]
        self.recorded = recorded
        self.decoded_noisy: DecodedSamples | None = None
        self.ids = self.names

    def clean(self, picture: int) -> Tensor:
        """The clean picture, (C, H, W) uint8; float32 in 0..255 where `data.scale` is dtype.

        Raises UserError (data) when its file is damaged, or of more than 8 bits where `data.scale` is picture.
        """
        return self.decoded[picture][0] if self.decoded else self._open(self.pictures[picture])

    def _open(self, path: Path) -> Tensor:
        if self.bands.scale == "picture":
            require_8_bits(path)
        return open_image(path, bands=self.bands)

    def noisy(self, picture: int) -> Tensor:
        """The recorded noisy picture, (C, H, W) of the clean one's size and type.

        Raises UserError (data) when its file is damaged or its size differs.
        """
        if self.decoded_noisy:
            return self.decoded_noisy[picture][0]
        path = self.recorded[picture]
        image, clean = self._open(path), self.clean(picture)
        if image.shape != clean.shape:
            sizes = [f"{one.shape[2]}×{one.shape[1]}" for one in (image, clean)]
            found = f"noisy picture {sizes[0]}, clean picture {sizes[1]} (width × height)"
            raise data_error(path, found, "make both of one scene, pixel for pixel")
        return image

    def files(self) -> list[list[Path]]:
        """The clean picture and the recorded noisy one of each sample."""
        clean_and_noisy = [[clean, *self.recorded[index : index + 1]] for index, clean in enumerate(self.pictures)]
        return [clean_and_noisy[self.picture_of(index)] for index in range(len(self.ids))]

    def picture_of(self, index: int) -> int:
        """The position of a sample's picture among the pictures of the split."""
        return index

    def keep_decoded(self, folder: Path | None = None) -> None:
        self.decoded = self.decoded_noisy = None
        decoded = self._decode(self.pictures, self.clean, folder, "clean")
        if self.recorded:
            self.decoded_noisy = self._decode(self.recorded, self.noisy, folder, "noisy")
        self.decoded = decoded

    def _decode(self, paths: list[Path], read: Callable[[int], Tensor], folder: Path | None, kind: str) -> DecodedSamples:
        """The file of decoded pictures; each has a mask of zeros, which the format asks for."""

        def decode(index: int) -> tuple[Tensor, Tensor]:
            image = read(index)
            return image, torch.zeros(image.shape[1:], dtype=torch.uint8)

        contents = digest_files(list(zip(self.pictures, paths, strict=True))).tolist()  # the sizes of pairs were compared
        digest = digest_of("decoded pictures 1", PIL.__version__, *self.bands, *self.names, *contents)
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(pixel_count, paths))
        source = Undecoded(digest, pixels, decode, self.bands)
        return open_decoded(folder or self.root / FOLDER, f"{self.file_name}.{kind}", source)


class NoisyPatches(CleanPictures):
    """The samples of training: augmented, with noise that is a function of (seed, epoch, id) alone.

    The image is (C, H, W) float32 and not clipped. The truth is float32, too, and NaN beyond the borders of the picture.
    """

    def before_colors(self, key: SampleKey) -> Sample:
        """The sample, whose colours are changed already: before the noise is added."""
        name = self.ids[key.picture]
        clean, mask = self._augmented(self.clean(key.picture), key, name)
        random = np.random.default_rng(derive_seed(self.seed, "noise", key.epoch, name))
        truth = clean.float()
        if self.recorded:
            image = self._augmented(self.noisy(key.picture), key, name)[0].float()
        else:
            level = draw_level(self.noise, random)
            image = add_noise(clean, self.noise.kind, level, random)
            if self.noise.target == "noisy":
                truth = add_noise(clean, self.noise.kind, level, random)
        beyond = mask == IGNORE_INDEX
        return Sample(image, truth.masked_fill(beyond, torch.nan) if beyond.any() else truth, name)

    def _augmented(self, image: Tensor, key: SampleKey, name: str) -> tuple[Tensor, Tensor]:
        """The image after its transformation and changes of colour, and a mask that is `IGNORE_INDEX` beyond its borders."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(self.seed, "augment", key.epoch, name))
            image, mask = self.transform(image, torch.zeros(image.shape[1:], dtype=torch.uint8), key.shrink)
            colors = self.draw_colors()
        return change_colors(image, colors).contiguous(), mask

    def read(self, index: int) -> Sample:
        """The whole clean picture, twice. Raises UserError (data) when its file is damaged."""
        clean = self.clean(index)
        return Sample(clean, clean, self.ids[index])


class ScoredPictures(CleanPictures):
    """The samples of a score: each picture at each strength of its noise, always with the same noise.

    Drawn noise is that of `numpy.random.RandomState(0)` for each picture. The image is (C, H, W) float32 and not clipped, the
    truth uint8, of deeper pictures rounded. With several strengths an id ends with its own, as in "street σ25".
    """

    def __init__(self, root: Path, split: str, noise: NoiseConfig, bands: Bands) -> None:
        super().__init__(root, split, noise, bands)
        self.levels = (0.0,) if noise.folder else scored_levels(noise)
        ending = partial(_ending, noise.kind)
        several = len(self.levels) > 1
        self.ids = [f"{name} {ending(level)}" if several else name for level in self.levels for name in self.names]

    def picture_of(self, index: int) -> int:
        """The position of a sample's picture among the pictures of the split."""
        return index % len(self.names)

    def level_of(self, index: int) -> float:
        """The strength of a sample's noise; 0 where it is recorded."""
        return self.levels[index // len(self.names)]

    def before_colors(self, key: SampleKey) -> Sample:
        """The sample."""
        return self.read(key.picture)

    def read(self, index: int) -> Sample:
        """The noisy picture and the clean one. Raises UserError (data) for a fault of their files."""
        picture = self.picture_of(index)
        clean = self.clean(picture)
        truth = clean if clean.dtype == torch.uint8 else to_8_bits(clean)
        if self.recorded:
            return Sample(self.noisy(picture).float(), truth, self.ids[index])
        image = add_noise(clean, self.noise.kind, self.level_of(index), np.random.RandomState(0))
        return Sample(image, truth, self.ids[index])


def _ending(kind: str, level: float) -> str:
    return f"quality {level:g}" if kind == "jpeg" else f"σ{level:g}"


def _recorded_picture(root: Path, folder: str, name: str) -> Path | UserError:
    """The noisy picture of an id, or its fault."""
    expected = root / folder / name
    names = names_by_stem(expected.parent).get(expected.name, [])
    if not names:
        return data_error(expected, "no noisy picture of this name", "restore it, or remove its id from the split")
    if len(names) > 1:
        return data_error(expected.with_name(names[1]), f"has the id of {names[0]} too", "remove or rename one of them")
    path = expected.with_name(names[0])
    if not is_inside(path, root):
        return data_error(path, "lies outside of the data folder", "copy it into the data folder")
    return path
