"""Predictor: the mask of one picture, or the picture without its noise, in Python. `segnet.prediction` writes files of many."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config.sections import Bands
from segnet.data.deep_pictures import Values, limits_of
from segnet.data.images import image_to_tensor, open_raster, require_8_bits
from segnet.data.mask_files import save_mask
from segnet.data.picture_encoding import encode_picture
from segnet.data.scaling import Raster, scale_values, stored_values
from segnet.inference.answers import predict, prepare_to_predict
from segnet.inference.exported import Network
from segnet.inference.loaded_model import load_models
from segnet.inference.precision import precision_of, resolve_precision
from segnet.system.devices import choose_device
from segnet.system.errors import UserError, config_error
from segnet.system.files import atomic_write
from segnet.tasks.choice import build_task
from segnet.tasks.denoising_score import Restored
from segnet.tasks.segmentation_score import Maps
from segnet.visualization import overlay, preview, to_array

Picture = Path | str | Image.Image | np.ndarray | Tensor
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class Prediction(NamedTuple):
    """The result for one picture: NumPy arrays of the picture's own size."""

    image: Bytes  # (H, W, 3) RGB, upright
    classes: ClassSet
    mask: Bytes  # (H, W) class ids
    confidence: Floats  # (H, W) probability of the predicted class
    uncertainty: Floats  # (H, W) 0 certain .. 1: entropy / log K
    entropy: Floats  # (H, W) of the probabilities, in nats: 0..log K
    variance: Floats | None  # (H, W) between dropout samples, mean over the classes; None without samples
    mutual_information: Floats | None  # (H, W) nats: the part of the entropy due to dropout; None without samples
    probabilities: Floats | None  # (K, H, W) sums to 1 over the classes; None unless requested

    def save(self, path: Path | str) -> None:
        """Write the mask as a palette PNG, atomically. Raises UserError (config) for a name that does not end in .png."""
        if Path(path).suffix.lower() != ".png":
            raise config_error(path, "a mask is a PNG", "let the name end in .png")
        save_mask(Path(path), self.mask, self.classes)

    def overlay(self, opacity: float = 0.55) -> Bytes:
        """(H, W, 3) RGB: the image with the mask's colours over it. Black classes stay transparent."""
        return overlay(torch.from_numpy(self.image).permute(2, 0, 1), torch.from_numpy(self.mask), self.classes, opacity=opacity)


class Restoration(NamedTuple):
    """The result of denoising one picture: NumPy arrays of the picture's own size."""

    image: Bytes | Floats  # (H, W, C), upright: the noisy picture as the network sees it, in 0..255
    restored: NDArray[Any]  # (H, W, C) of the picture's own type and range
    deviation: Floats | None  # (H, W) levels of 255: standard deviation between dropout samples; None without samples

    def save(self, path: Path | str) -> None:
        """Write `encode_picture` of the restored picture, atomically. Raises UserError (config) as that does."""
        content = encode_picture(Path(path), self.restored)
        with atomic_write(Path(path)) as file:
            file.write(content)


class Predictor:
    """A trained network that predicts pictures: `predict` of a segmentation, `restore` of a denoising."""

    def __init__(self, path: Path | str | Sequence[Path | str], overrides: Sequence[str] = ()) -> None:
        """Load a run folder, a checkpoint or an exported file; of several runs, the probabilities are averaged.

        `overrides` change its configuration, e.g. "inference.flip=horizontal" or "device=cpu".
        Raises UserError as `load_models` does, and (environment) when the device is not there.
        """
        loaded = load_models([path] if isinstance(path, Path | str) else path, overrides)
        config = loaded.config
        self.classes = loaded.classes
        self.device = choose_device(config.device)
        model = loaded.model.to(self.device)
        self.precision = precision_of(config.inference, model)
        self.config = config.model_copy(update={"inference": resolve_precision(config.inference, model)})
        self.path = loaded.path
        self.task = build_task(self.config)
        self.weights_digest = digest_of_weights(model)
        self.model = prepare_to_predict(model, self.config.inference)

    def predict(self, picture: Picture, *, probabilities: bool = False, valid: Tensor | None = None) -> Prediction:
        """The prediction for a path, a Pillow picture, or uint8 values: array (H, W, C) or tensor (C, H, W).

        C is data.channels of the network's configuration; three channels are R, G, B. An array (H, W) is grey. Where data.scale
        is not "picture", arrays are of any integers or floats, scaled as such pictures, and tensors of float32.

        The mask is `IGNORE_INDEX` where a picture file, or `valid` (H, W) bool, says that the picture holds nothing.

        A picture may have any size; a large one is predicted in windows. `probabilities` requests those of all K classes:
        4·K bytes a pixel.
        Raises UserError (data) for a file that is not a picture, ValueError for an array or tensor of another shape or type.
        """
        self._require_task("segmentation")
        bands = self.config.data.bands
        if isinstance(picture, Path | str):
            picture, valid, *_ = open_raster(picture, bands=bands)
        image = _as_image(picture, bands)
        maps: Maps = self.answer(image[None], keep_mean=probabilities)
        if valid is not None:
            maps = maps._replace(mask=maps.mask.where(valid, IGNORE_INDEX))
        found: dict[str, Any] = {name: None if values is None else values[0].numpy() for name, values in maps._asdict().items()}
        return Prediction(to_array(preview(image, bands)), self.classes, **found)

    def restore(self, picture: Picture) -> Restoration:
        """The restored picture, for pictures as `predict` takes; it has their type and range. Raises as `predict`.

        Where `data.scale` is "picture", that is uint8; a deeper file raises UserError (data). A tensor of float32 is in 0..255.
        """
        bands = self.config.data.bands
        if isinstance(picture, Path | str):
            return self.restore_raster(self.read(Path(picture)))
        if isinstance(picture, Image.Image):
            return self.restore_raster(Raster(_without_repeats(image_to_tensor(picture, bands=self.bands_read), bands)))
        if isinstance(picture, np.ndarray) and bands.scale != "picture":
            return self.restore_raster(_deep_raster(picture, bands))
        image = _as_image(picture, bands)
        is_float = isinstance(picture, Tensor) and picture.dtype == torch.float32
        return self.restore_raster(Raster(image, stored="float32" if is_float else "uint8"))

    def restore_raster(self, raster: Raster) -> Restoration:
        """The restored picture of `open_raster`, of the type in which its file stores the values."""
        self._require_task("denoise")
        answers: list[Restored] = [self.answer(part[None]) for part in raster.image.split(self.config.data.channels)]
        restored = torch.cat([answer.image[0] for answer in answers])
        deviations = [answer.deviation[0] for answer in answers if answer.deviation is not None]
        deviation = torch.stack(deviations).mean(dim=0).numpy() if deviations else None
        return Restoration(to_array(raster.image), stored_values(restored, raster), deviation)

    @property
    def bands_read(self) -> Bands:
        """The bands of the network; R, G and B of one for denoising that sees one band: it restores colours one by one."""
        bands = self.config.data.bands
        return bands._replace(channels=3) if self.config.task == "denoise" and bands.channels == 1 else bands

    def read(self, path: Path, content: bytes | None = None) -> Raster:
        """The picture for `predict_or_restore`, by `open_raster` with `bands_read`; grey pictures have one band then.

        `content` is used in place of the bytes of the file. Raises UserError (data) as `open_raster` does, and for a picture
        that is too deep for the network's task.
        """
        bands = self.config.data.bands
        if self.config.task == "denoise" and bands.scale == "picture":
            require_8_bits(path, content)
        try:
            raster = open_raster(path, content, bands=self.bands_read)
        except UserError:
            if self.bands_read == bands:
                raise
            raster = open_raster(path, content, bands=bands)  # its error names the network's own bands
        return raster._replace(image=_without_repeats(raster.image, bands))

    def predict_or_restore(self, raster: Raster, *, probabilities: bool = False) -> Prediction | Restoration:
        """What the network is for: `predict` or `restore_raster`, of a picture of `open_raster`."""
        if self.config.task == "denoise":
            return self.restore_raster(raster)
        return self.predict(raster.image, probabilities=probabilities, valid=raster.valid)

    def answer(self, images: Tensor, *, keep_mean: bool = False) -> Any:
        """The answer of the network's task for (B, C, H, W) images in 0..255: `Maps` or `Restored`."""
        return predict(self.model, images, self.config.inference, self.task.answers, keep_mean=keep_mean)

    def _require_task(self, task: str) -> None:
        if self.config.task != task:
            remedy = "call restore" if self.config.task == "denoise" else "call predict"
            raise config_error(self.path, f"a network for task {self.config.task}", remedy)


def digest_of_weights(model: Network) -> str:
    """32 hexadecimal digits that depend on the weights of a network as it was loaded, whatever computes with them later."""
    content = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(model.state_dict().items()):
        content.update(f"{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
        content.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()


def _without_repeats(image: Tensor, bands: Bands) -> Tensor:
    """(1, H, W) of an image (3, H, W) with equal bands, which is grey, for a network of one band; else the image itself."""
    is_grey = bands.channels == 1 and bool((image == image[:1]).all())
    return image[:1] if is_grey else image


def _as_image(picture: Image.Image | np.ndarray | Tensor, bands: Bands) -> Tensor:
    """(C, H, W) uint8, or float32 where `bands.scale` is not "picture", on the CPU. Raises as `Predictor.predict`."""
    if isinstance(picture, Image.Image):
        return image_to_tensor(picture, bands=bands)
    count = bands.channels
    if bands.scale != "picture" and not isinstance(picture, Tensor):
        return _deep_raster(np.asarray(picture), bands).image
    image = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture))
    if image.dim() == 2 and count in (1, 3):
        image = image.expand(count, -1, -1)  # grey
    elif image.dim() == 3 and not isinstance(picture, Tensor):
        image = image.movedim(-1, 0)
    expected = torch.uint8 if bands.scale == "picture" else torch.float32
    if image.dim() != 3 or image.shape[0] != count or image.dtype != expected or not image.numel():
        kind = "RGB" if count == 3 else f"{count} channels"
        grey = ", or grey (H, W)" if count in (1, 3) else ""
        forms = f"{kind} as array (H, W, {count}) or tensor ({count}, H, W){grey}"
        raise ValueError(f"expected {str(expected).removeprefix('torch.')}: {forms}; got {tuple(picture.shape)} {picture.dtype}")
    return image.cpu()


def _deep_raster(array: np.ndarray, bands: Bands) -> Raster:
    """The raster of an array (H, W, C) or, for one channel, (H, W). Raises ValueError for another shape or type."""
    whole = array[..., None] if array.ndim == 2 else array
    if whole.ndim != 3 or whole.shape[2] != bands.channels or whole.dtype.kind not in "uif" or not whole.size:
        raise ValueError(f"expected an array (H, W, {bands.channels}) of numbers; got {array.shape} {array.dtype}")
    return scale_values(Values(whole, bands.channels, limits_of(whole.dtype)), bands)
