"""Every knob, typed and ranged, and the one door through which a configuration enters: `load_config`."""

from __future__ import annotations

import difflib
import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from segnet.classes import CLASS_SETS, IGNORE_INDEX, ClassSet, class_set, difference
from segnet.errors import ExitCode, UserError
from segnet.files import is_inside, place_of
from segnet.yaml_tree import Dumper, Origins, Tree, merge, override_tree, read_mapping, read_tree, refuse, refuse_undecodable

CLASSES_FILE = "classes.yaml"  # in a data folder: names, colors and ignore
LISTS = "ImageSets/Segmentation"  # in a data folder: the lists of its splits

# ---------------------------------------------------------------------------------------------------------------------
# The sections
# ---------------------------------------------------------------------------------------------------------------------

PathText = Annotated[str, Field(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Channel = Annotated[int, Field(ge=0, le=255)]
Width = Annotated[int, Field(ge=1, le=65536)]
Positive = Annotated[float, Field(gt=0)]
Epochs = Annotated[float, Field(gt=0, le=1e6)]
Zoom = Annotated[float, Field(ge=0.1, le=10)]
Share = Annotated[float, Field(ge=0.1, le=1)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Memory = Literal["plain", "lean", "checkpoint"]
_SectionType = TypeVar("_SectionType", bound=BaseModel)


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys, no NaN or infinity, no silent type conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class StageConfig(Section):
    """One encoder or decoder stage: a row of convolutions (or deconvolutions) between two changes of resolution."""

    widths: tuple[Width, ...] = Field(min_length=1)
    """Output channels of each convolution, in order."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an activation: after the pooling of an encoder stage, at the end of a decoder stage."""


class NeckLayerConfig(Section):
    """One layer between encoder and decoder, unpadded: a convolution takes kernel_size - 1 pixels, a deconvolution adds them."""

    operation: Literal["convolution", "deconvolution"] = "convolution"
    """What the layer computes; batch normalisation and ReLU follow."""
    width: Width
    """Output channels."""
    kernel_size: Annotated[int, Field(ge=1, le=31)]
    """Side of the kernel, pixels."""


class NormalizationConfig(Section):
    """What happens to the RGB values 0..255 first, inside the network."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted from R, G, B. The default is ImageNet's mean."""
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    """Divides R, G, B afterwards. The default is ImageNet's standard deviation."""
    local_response: bool = False
    """Local response normalisation over the three channels (SegNet-Basic), size 5, alpha 1e-4, beta 0.75."""


class ModelConfig(Section):
    """An encoder-decoder: each encoder stage is mirrored by a decoder stage (decoder[0] undoes the last pooling)."""

    encoder: tuple[StageConfig, ...] = Field(min_length=1, max_length=8)
    """Stages from full resolution downwards; a 2x2 max-pooling ends each."""
    neck: tuple[NeckLayerConfig, ...] = ()
    """Layers at the lowest resolution (DeconvNet: VGG16's fully connected layers and their mirror)."""
    decoder: tuple[StageConfig, ...] = Field(min_length=1, max_length=8)
    """Stages from the lowest resolution upwards; an upsampling opens each."""
    upsampling: Literal["unpool", "bilinear", "deconvolution"] = "unpool"
    """How a decoder stage regains its size: max-unpooling by the winners, or the ablations of SegNet's table 1:
    fixed bilinear interpolation, or a learnt deconvolution with stride 2."""
    kernel_size: Literal[1, 3, 5, 7, 9, 11] = 3
    """Side of every convolution in the stages, pixels."""
    head_kernel_size: Literal[1, 3, 5, 7] = 3
    """Side of the last convolution, which gives the class logits, pixels."""
    decoder_operation: Literal["deconvolution", "convolution"] = "deconvolution"
    """What a decoder stage is made of. With stride 1 the two compute the same functions from flipped kernels."""
    decoder_relu: bool = True
    """Whether a ReLU follows each batch normalisation of the decoder (SegNet-Basic: no)."""
    normalization: NormalizationConfig = NormalizationConfig()
    """The first operation of the network, on RGB values 0..255."""
    encoder_weights: PathText | None = None
    """Where encoder and neck start from: vgg16 or vgg16_bn (torchvision, downloaded), a file with such weights, a run folder or
    checkpoint of this program with the same encoder, or null: He."""
    decoder_weights: Literal["he", "mirrored"] = "he"
    """Where the decoder starts: He's random kernels, or mirrored: each layer as the transpose of the encoder's layer it undoes,
    as a deconvnet looks back through a network (Zeiler & Fergus 2014, section 2.1). A layer of another shape stays with He."""

    @model_validator(mode="after")
    def _mirrored(self) -> ModelConfig:
        if len(self.encoder) != len(self.decoder):
            raise ValueError(f"{len(self.encoder)} encoder stages but {len(self.decoder)} decoder stages; each needs its mirror")
        growth = sum((1 if layer.operation == "deconvolution" else -1) * (layer.kernel_size - 1) for layer in self.neck)
        if growth != 0:
            raise ValueError(f"neck changes the size by {growth} pixels; its deconvolutions must add what its convolutions take")
        width = self.neck[-1].width if self.neck else self.encoder[-1].widths[-1]
        for index, (stage, mirror) in enumerate(zip(self.decoder, reversed(self.encoder), strict=True)):
            if self.upsampling == "unpool" and width != mirror.widths[-1]:
                raise ValueError(
                    f"decoder stage {index} unpools {width} channels by winners of {mirror.widths[-1]}; "
                    f"let what comes before it end with {mirror.widths[-1]}"
                )
            width = stage.widths[-1]
        return self


class DataConfig(Section):
    """A data set in Pascal VOC's layout: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/<split>.txt."""

    root: PathText
    """The data folder. A relative path starts in the working folder, here and in cache_folder and encoder_weights (in base: at
    its own file); ~ and $NAME are not expanded."""
    classes: Literal["voc", "camvid", "sample"] | tuple[str, ...] = Field(min_length=1, max_length=255)
    """A known class table, or the class names in the order of their ids; left out: those of ROOT/classes.yaml."""
    colors: tuple[tuple[Channel, Channel, Channel], ...] = ()
    """R, G, B of each class, for masks and overlays; empty: those of the table, or VOC's."""
    ignore_id: Annotated[int, Field(ge=0, le=255)] = IGNORE_INDEX
    """The value in this set's mask files that means: neither trained nor scored."""
    train_split: str = "train"
    """Split file that training reads."""
    val_split: str = "val"
    """Split file that picks the best checkpoint."""
    workers: int = Field(default=2, ge=0, le=256)
    """Processes that read and augment pictures; they do not change what is learnt."""
    worker_timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without a batch after which the workers count as hung."""
    cache: Literal["none", "disk"] = "none"
    """disk: training decodes each picture once, into a file of 4 bytes per pixel that all workers map into their memory."""
    cache_folder: PathText | None = None
    """Where that file stands; null: in .segnet/ in the data folder."""

    @field_validator("classes")
    @classmethod
    def _more_than_one(cls, classes: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(classes, str) and len(classes) == 1:
            both = "[background, …]" if classes[0] == "background" else f"[background, {classes[0]}]"
            raise ValueError(
                f"'{classes[0]}' alone, which a network answers everywhere; write {both}, the rest of a picture first, "
                "and where masks hold 0 and 255 make 255 their class 1: prepare_data.py convert MASKS --out DIR --map 255=1"
            )
        return classes

    @model_validator(mode="after")
    def _aligned(self) -> DataConfig:
        count = len(self.class_set)
        if self.colors and len(self.colors) != count:
            raise ValueError(f"{len(self.colors)} colors for {count} classes")
        if len(set(self.class_set.names)) != count:
            raise ValueError("two classes have the same name")
        if self.ignore_id < count:
            name = self.class_set.names[self.ignore_id]
            raise ValueError(f"ignore_id: {self.ignore_id} is the id of class '{name}'; see prepare_data.py convert --map")
        return self

    @property
    def class_set(self) -> ClassSet:
        """Names and colours as one table."""
        if isinstance(self.classes, str):
            known = CLASS_SETS[self.classes]
            return class_set(known.names, self.colors or known.colors, ignore_id=self.ignore_id)
        return class_set(self.classes, self.colors, ignore_id=self.ignore_id)


class AugmentConfig(Section):
    """Random changes of a training picture and its mask. Each picture of each epoch has its own, a function of the seed."""

    crop_size: tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]] = (320, 320)
    """Height and width of what the network trains on, pixels. Beyond the picture: mean colour, mask ignored."""
    scale: tuple[Zoom, Zoom] = (0.5, 2.0)
    """Range of the zoom, drawn uniformly in its logarithm; 1 keeps the picture's own resolution."""
    sizes: tuple[Share, ...] = Field(default=(1.0,), min_length=1, max_length=100)
    """Progressive resizing (Tan & Le 2021, section 4): the run has as many parts of equal steps as there are numbers, and in
    each part crop_size (to 16 pixels at least) and scale are multiplied by its number. [0.5, 1]: half the size first, four times
    as fast."""
    flip: Probability = 0.5
    """Probability of mirroring left and right."""
    brightness: Probability = 0.0
    """Brightness is multiplied by a factor from 1-x to 1+x."""
    contrast: Probability = 0.0
    """Contrast is multiplied by a factor from 1-x to 1+x."""
    saturation: Probability = 0.0
    """Saturation is multiplied by a factor from 1-x to 1+x."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Hue is turned by -x to +x of the colour circle."""
    rotation: Annotated[float, Field(ge=0, le=45)] = 0.0
    """The picture is turned by an angle from -x to +x, degrees. What comes from beyond it: mean colour, mask ignored."""
    blur: Probability = 0.0
    """Probability of a Gaussian blur, its standard deviation drawn from 0.1 to 2 pixels of the crop."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: {self.scale[0]} is above {self.scale[1]}; write the smaller first")
        return self


class LossConfig(Section):
    """Cross-entropy over the pixels that are not ignored."""

    class_weights: Literal["none", "median_frequency", "enet"] = "none"
    """Weights per class, measured on the training masks: Eigen & Fergus 2015, section 6.3.2, or ENet (Paszke et al. 2016)."""
    weight_power: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Exponent on those weights: 1 as published, 0.5 their square roots (gentler)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over the classes."""
    hardest: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each picture's scored pixels that counts, those with the highest loss (online hard example mining); 1: all."""


class OptimConfig(Section):
    """The optimizer and the learning rate over the run."""

    name: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: Positive = 0.01
    """Peak learning rate."""
    encoder_lr_factor: Annotated[float, Field(ge=0, le=10)] = 1.0
    """The encoder learns at this multiple of the rate; below 1 for pretrained weights."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; AdamW's first beta."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    """Weight decay of kernels; biases and batch normalisation have none."""
    schedule: Literal["polynomial", "cosine", "one_cycle", "constant"] = "polynomial"
    """How the rate falls from its peak to zero; one_cycle: it also rises along a cosine; constant: it does not fall."""
    power: Positive = 0.9
    """Exponent of the polynomial schedule."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the run over which the rate rises linearly from zero to its peak."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Gradients with a longer L2 norm are shortened to it; 0: never."""


class TrainConfig(Section):
    """The loop."""

    epochs: Epochs = 100.0
    """How often each training picture is seen."""
    batch_size: int = Field(default=8, ge=1, le=4096)
    """Pictures per step, over all ranks."""
    accumulate: int = Field(default=1, ge=1, le=4096)
    """Parts in which a step computes its batch, one after the other, for less memory. The gradient is that of the whole batch
    (batch normalisation sees a part at a time)."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass (autocast); weights stay in float32. auto: the fastest one that the device
    has instructions for; a run that is resumed keeps its own."""
    memory: Memory = "plain"
    """What the forward pass keeps for the backward pass: plain all activations, lean the outputs of convolutions, checkpoint
    those of stages; the rest is computed again. The gradients are the same."""
    compile: bool = False
    """Let torch.compile fuse the network, once for each of up to eight sizes; the first step of a size takes minutes."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights, which is then what is scored and kept as best; 0: none."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time, also on a GPU, where that costs time."""
    log_every: int = Field(default=50, ge=1)
    """Steps between two log lines."""
    eval_every: Epochs = 1.0
    """Epochs between two evaluations on the val split."""
    save_every: Epochs = 1.0
    """Epochs between two checkpoints."""
    max_minutes: Annotated[float, Field(ge=0)] = 0.0
    """Stop after so many minutes, with a checkpoint that --resume continues from; 0: no limit."""

    @model_validator(mode="after")
    def _one_plan(self) -> TrainConfig:
        if self.compile and self.memory != "plain":
            raise ValueError(f"memory {self.memory} has no effect with compile, which plans itself what is kept; choose one")
        return self


class InferenceConfig(Section):
    """How a picture becomes class probabilities – the same in validation, evaluation and prediction."""

    scales: tuple[Zoom, ...] = Field(default=(1.0,), min_length=1, max_length=8)
    """The picture is seen at each of these zooms; probabilities are averaged at its own size."""
    flip: bool = False
    """Also see it mirrored, and average."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass; auto: the fastest one that the device has instructions for."""
    compile: bool = False
    """Let torch.compile fuse the network, once for each of up to eight sizes; the first picture of a size takes minutes. On CPUs
    it was slower."""
    dropout_samples: int = Field(default=0, ge=0, le=1000)
    """Monte-Carlo dropout: average that many passes with dropout on (Bayesian SegNet: 50; 6 already help); 0: dropout off."""
    window: int = Field(default=0, ge=0, le=65536)
    """Side of the sliding windows that a larger picture is seen through, pixels; rounded up to what the poolings divide.
    0: pictures of up to 2.4 megapixels are seen whole, others through windows of 1536."""
    overlap: int | None = Field(default=None, ge=0, le=32768)
    """Pixels that neighbouring windows share, at most half a window. null: what the network's field of view needs to give
    the answer of the whole picture, with scales [1.0]; where that is more than half a window, a quarter of it."""


class Config(Section):
    """A whole experiment. What is not written has the default."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Fixes the order of samples, augmentation, initial weights and dropout."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: the GPU when there is one. mps, an Apple GPU, is refused: it lacks float64."""
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        taken = sum(layer.kernel_size - 1 for layer in self.model.neck if layer.operation == "convolution")
        sides = [max(1, -(-side // 2 ** len(self.model.encoder)) - taken) for side in self.augment.crop_size]
        if self.train.accumulate > self.train.batch_size:
            raise ValueError(f"train.accumulate: {self.train.accumulate} parts of a batch of {self.train.batch_size}")
        if sides[0] * sides[1] * (self.train.batch_size // self.train.accumulate) == 1:
            raise ValueError("this augment.crop_size leaves batch normalisation a single value; raise train.batch_size")
        if self.inference.dropout_samples and not any(stage.dropout for stage in (*self.model.encoder, *self.model.decoder)):
            raise ValueError("inference.dropout_samples: this network has no dropout (bayesian_segnet has); set it to 0")
        return self


# ---------------------------------------------------------------------------------------------------------------------
# Validation: all mistakes at once, each with its file and line
# ---------------------------------------------------------------------------------------------------------------------


class _Origin(NamedTuple):
    file: Path
    lines: Origins

    def of(self, path: tuple[str, ...]) -> str:
        """The line or override that set the value at `path`, or the nearest value around or inside it."""
        around = (path[:length] for length in range(len(path), 0, -1))
        inside = [line for part, line in self.lines.items() if part[: len(path)] == path]  # of a section that nobody wrote whole
        return next((self.lines[part] for part in around if part in self.lines), inside[0] if inside else str(self.file))


def _known_keys(path: tuple[str, ...]) -> list[str]:
    """The keys that the section at `path` has."""
    section: type[BaseModel] = Config
    for part in path:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
        elif part in section.model_fields:
            section = NeckLayerConfig if part == "neck" else StageConfig  # the sections that stand in lists
    return list(section.model_fields)


def _unknown_key(where: str, key: str, word: str, known: list[str]) -> UserError:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return refuse(where, f"{key}: unknown key", f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}")


def _mistake(error: ErrorDetails, origin: _Origin) -> UserError:
    path = tuple(str(part) for part in error["loc"] if not str(part).startswith(("tuple[", "literal[")))
    where, key = origin.of(path), ".".join(path)
    if error["type"] == "extra_forbidden":
        return _unknown_key(where, key, path[-1], _known_keys(path[:-1]))
    if error["type"] == "missing" and path == ("data", "classes"):
        return refuse(where, f"{key}: missing", f"give it in this file, or write {CLASSES_FILE} into the data folder")
    if error["type"] == "missing":
        return refuse(where, f"{key}: missing", "give it in this file or name a base file that does")
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    if isinstance(error["input"], dict | list):
        return refuse(where, f"{key}: {expected}" if key else expected)
    is_text = error["type"] == "string_type" and error["input"] is not None  # in YAML no is false, and 2024 a number
    return refuse(where, f"{key}: found {error['input']!r:.100}, {expected}", "put it in quotes" if is_text else "")


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """The validated configuration of a YAML file, its base files and `overrides` such as "train.epochs=5".

    Raises UserError (config) that names every mistake with its file and line, (data) where the classes are those of a data
    folder that is not there.
    """
    lines: Origins = {}
    tree = read_tree(Path(path), lines)
    for override in overrides:
        tree = merge(tree, override_tree(override, lines))
    return validate_config(_with_classes(tree, lines), _Origin(Path(path), lines))


def root_fault(root: Path) -> tuple[str, str] | None:
    """What is found in place of a data folder, and the cure: it is not there, or has no lists, and one above or below has."""
    remedy = "prepare the data (python scripts/prepare_data.py --help), or set data.root"
    if not os.path.isdir(root):
        if os.path.exists(root):
            return "a file, not a folder", f"name the folder that holds {LISTS}/; {remedy}"
        beside = [path.name for path in _folders_in(root.parent)]
        close = difflib.get_close_matches(root.name, beside, n=1)
        return f"no such folder{place_of(root)}", f"did you mean {root.parent / close[0]}?" if close else remedy
    if os.path.isdir(root / LISTS):
        return None
    below = _folders_in(root)
    around = [*below, *Path(os.path.abspath(root)).parents[:2], *(path for folder in below for path in _folders_in(folder))]
    near = next((path for path in around if os.path.isdir(path / LISTS)), None)
    return f"no {LISTS}/ in it", f"did you mean {near}?" if near else remedy


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def load_data_folder(root: Path) -> DataConfig:
    """The data set in a folder, with the classes of its classes.yaml. Raises UserError (config), (data) where there is none."""
    lines: Origins = {}
    refuse_undecodable(str(root), root)
    data = _with_classes({"data": {"root": str(root)}}, lines)["data"]
    assert isinstance(data, dict)
    if "classes" not in data and not (root / CLASSES_FILE).exists():
        remedy = "write it, e.g. names: [background, leaf], or give a CONFIG instead of a folder"
        raise refuse(root / CLASSES_FILE, "no such file", remedy)
    return _validated(DataConfig, data, _Origin(root / CLASSES_FILE, lines), ("data",))


def _with_classes(tree: Tree, lines: Origins) -> Tree:
    """`tree` with the classes of the data folder's own file, where it names none; their lines are added to `lines`."""
    data = tree.get("data")
    if not isinstance(data, dict) or "classes" in data or not isinstance(root := data.get("root"), str):
        return tree
    path = Path(root) / CLASSES_FILE
    if "\0" in root or not os.path.lexists(path):
        if root and (fault := root_fault(Path(root))):
            where = lines.get(("data", "root"))
            raise UserError(ExitCode.DATA, where or root, f"data.root: {root}: {fault[0]}" if where else fault[0], fault[1])
        return tree
    if not is_inside(path, Path(root)):
        raise refuse(path, "is a link out of the data folder", "copy the file into the data folder")
    own, own_lines = read_mapping(path)
    keys = {"names": "classes", "colors": "colors", "ignore": "ignore_id"}
    for key in own:
        if key not in keys:
            raise _unknown_key(own_lines[key,], key, key, list(keys))
    if "names" not in own:
        raise refuse(path, "names: missing", "write names: [background, …] in the order of their ids")
    for key, value in own.items():
        if keys[key] not in data:
            lines["data", keys[key]] = own_lines[key,]
            data = {**data, keys[key]: value}
    return {**tree, "data": data}


def validate_config(tree: Tree, origin: _Origin | Path) -> Config:
    """`tree` as a Config. Raises UserError (config) with all its mistakes."""
    return _validated(Config, tree, _Origin(origin, {}) if isinstance(origin, Path) else origin)


def _validated(kind: type[_SectionType], tree: Tree, origin: _Origin, path: tuple[str, ...] = ()) -> _SectionType:
    """`tree`, which stands at `path` of a configuration, as a section."""
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        details = [d for d in error.errors() if d["type"] != "too_short" or d["input"] == []]  # no echo of a bad item
        details = [d for d in details if not _is_of_another_branch(d)]
        if any(d["loc"] == ("data", "root") and d["type"] != "missing" for d in details):
            details = [
                d for d in details if d["loc"] != ("data", "classes") or d["type"] != "missing"
            ]  # they stand in that folder
        first, *others = [_mistake({**detail, "loc": (*path, *detail["loc"])}, origin) for detail in details]
        raise UserError(first.code, first.path, first.found, first.remedy, also=tuple(others)) from None


def _is_of_another_branch(error: ErrorDetails) -> bool:
    """Whether an error says that a list or mapping is none of the words that a key takes in place of a list."""
    return isinstance(error["input"], list | dict) and bool(error["loc"]) and str(error["loc"][-1]).startswith("literal[")


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with `overrides` such as "inference.flip=true". Raises UserError (config) for a mistake in them.

    Where they name another data folder, its classes.yaml says which value its masks ignore, and has to have the same classes.
    """
    tree, origins = dump_config(config), Origins()
    for override in overrides:
        tree = merge(tree, override_tree(override, origins))
    changed = validate_config(tree, _Origin(Path("KEY=VALUE"), origins))
    own = _table_of(changed.data) if ("data", "root") in origins else None
    if own is None:
        return changed
    odd = difference(own, config.data.class_set)
    if odd and ("data", "classes") not in origins:
        raise refuse(Path(changed.data.root) / CLASSES_FILE, f"{odd} as in the network", _way_out(own, config.data.class_set))
    ignore_id = changed.data.ignore_id if ("data", "ignore_id") in origins else own.ignore_id
    return changed.model_copy(update={"data": changed.data.model_copy(update={"ignore_id": ignore_id})})


def _way_out(own: ClassSet, expected: ClassSet) -> str:
    """How masks of one table become masks of another."""
    if set(own.names) == set(expected.names):
        moved = [f"--map {k}={expected.names.index(name)}" for k, name in enumerate(own.names) if expected.names[k] != name]
        names = f"names: [{', '.join(expected.names)}]"
        return f"convert its masks (prepare_data.py convert MASKS --out DIR {' '.join(moved)}) and write {names} into that file"
    return f"name a folder with the classes {', '.join(expected.names)}, or write data.classes=… if its ids mean these"


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths and overrides that a command line mixes: KEY=VALUE is an override where KEY begins with a key of a configuration.

    Raises UserError (config) for one that names files as well, and for one that names none and whose KEY is nearly right.
    """
    paths, overrides, known = list[str](), list[str](), list(Config.model_fields)
    for text in arguments:
        first, separator, _ = text.partition("=")
        first, dot, rest = first.partition(".")
        there = bool(separator) and (os.path.lexists(text) or bool(glob.glob(text, recursive=True)))
        if first in known and there:
            raise refuse(
                text, "sets a key, and is the name of files", f"write ./{text} for the files, or go elsewhere for the key"
            )
        close = difflib.get_close_matches(first, known, n=1) if separator and not there else []
        if close and first not in known:
            raise refuse(text, f"no such file, and no key begins with '{first}'", f"did you mean {close[0]}{dot}{rest}=…?")
        (overrides if separator and first in known else paths).append(text)
    return paths, overrides


def class_warnings(data: DataConfig) -> list[UserError]:
    """What the data folder's classes.yaml says otherwise than `data`, which counts."""
    path = Path(data.root) / CLASSES_FILE
    try:
        own = _table_of(data)
    except UserError as error:
        return [UserError(error.code, error.path, error.found, "mend it; the classes are those of the configuration")]
    if own is None:
        return []
    ignored = f"ignore is {own.ignore_id}, not {data.ignore_id}" if own.ignore_id != data.ignore_id else ""
    remedy = "what the configuration says counts; see whether its masks are made so"
    return [
        refuse(path, f"{found} as in the configuration", remedy) for found in (difference(own, data.class_set), ignored) if found
    ]


def _table_of(data: DataConfig) -> ClassSet | None:
    """The table of the data folder's own classes.yaml, where there is one. Raises UserError (config) for a mistake in it."""
    root = Path(data.root)
    return load_data_folder(root).class_set if os.path.lexists(root / CLASSES_FILE) else None


def dump_config(config: Config) -> Tree:
    """`config` as plain values, complete: what a checkpoint holds."""
    return json.loads(config.model_dump_json())


def config_to_yaml(config: Config) -> str:
    """`config` as YAML text, complete; `load_config` reads it back to an equal Config."""
    return yaml.dump(dump_config(config), Dumper=Dumper, sort_keys=False, width=120)


def config_schema() -> str:
    """The JSON schema of a configuration file, from which editors complete and check YAML."""
    schema = Config.model_json_schema()
    schema["properties"]["base"] = {"type": "array", "items": {"type": "string"}, "description": "Files below this one."}
    schema["required"] = []  # a file may leave sections to its base files
    schema["$defs"]["DataConfig"]["required"].remove("classes")  # and the classes to the data folder
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
