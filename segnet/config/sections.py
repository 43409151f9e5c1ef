"""The sections of the configuration: every key with its type, range, default and meaning.

A key is off at 0 where it is a number, at `none` where it is a choice, at `null` where it is a path. `auto`, and `null` for a
number, let the program choose. The meaning of each key is also printed in configs/template.yaml and in the JSON schema.
"""

from __future__ import annotations

from statistics import fmean
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from segnet.classes import CLASS_SETS, IGNORE_INDEX, NO_CLASSES, ClassSet, class_set, merge_classes, merge_fault

CLASSES_FILE = "classes.yaml"  # in a data folder: names, colors and ignore_index
LISTS = "ImageSets/Segmentation"  # in a data folder: the lists of its splits
PLAIN_PICTURES = "images"  # in a data folder of plain names: its pictures; its lists lie in the data folder itself

MAX_CHANNELS = 64  # of an image

PathText = Annotated[str, Field(min_length=1)]
BandNumber = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Probability = Annotated[float, Field(ge=0, le=1)]
Channel = Annotated[int, Field(ge=0, le=255)]
Width = Annotated[int, Field(ge=1, le=65536)]
Positive = Annotated[float, Field(gt=0)]
Epochs = Annotated[float, Field(gt=0, le=1e6)]
Zoom = Annotated[float, Field(ge=0.1, le=10)]
Share = Annotated[float, Field(ge=0.1, le=1)]
Sigma = Annotated[float, Field(gt=0, le=255)]
Quality = Annotated[int, Field(ge=1, le=100)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Recompute = Literal["nothing", "activations", "stages"]
TrainingKernel = Literal["auto", "torch", "native"]
ObserverName = Literal["tensorboard", "mlflow", "wandb"]


class Section(BaseModel):
    """A part of the configuration. It is immutable; unknown keys, NaN, infinity and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class StageConfig(Section):
    """One encoder or decoder stage: convolutions (or deconvolutions) at one resolution."""

    widths: tuple[Width, ...] = Field(min_length=1)
    """Output channels of each convolution, in order."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an activation: at the end of a stage, in the encoder after the pooling."""


class EncoderStageConfig(StageConfig):
    """One encoder stage."""

    pool: bool = True
    """A 2x2 max-pooling ends the stage, and the decoder stage that mirrors it begins with an upsampling. false: neither, both
    stages have the same resolution (REDNet)."""


class NeckLayerConfig(Section):
    """One layer between encoder and decoder. It has no padding: a convolution makes each side kernel_size - 1 pixels shorter,
    a deconvolution makes it longer by as many."""

    operation: Literal["convolution", "deconvolution"] = "convolution"
    """The operation of the layer; batch normalisation, unless batch_norm is false, and ReLU follow it."""
    width: Width
    """Output channels."""
    kernel_size: Annotated[int, Field(ge=1, le=31)]
    """Side of the kernel, pixels."""


class NormalizationConfig(Section):
    """The first operation of the network, on values 0..255."""

    mean: tuple[float, ...] = Field(default=(123.675, 116.28, 103.53), min_length=1, max_length=MAX_CHANNELS)
    """Subtracted from each channel. The default is ImageNet's mean of R, G, B; where data.channels is not 3, the mean of these
    three."""
    std: tuple[Positive, ...] = Field(default=(58.395, 57.12, 57.375), min_length=1, max_length=MAX_CHANNELS)
    """Divides each channel afterwards. The default is ImageNet's standard deviation of R, G, B; where data.channels is not 3,
    the mean of these three."""
    local_response: bool = False
    """Local response normalisation over the channels (SegNet-Basic), size 5, alpha 1e-4, beta 0.75."""

    def of(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each of `channels`: the average of the given ones where their number is another."""
        own, spread = ((fmean(v),) * channels if len(v) != channels else v for v in (self.mean, self.std))
        return own, spread


def _is_default(name: str, values: object) -> bool:
    return values == NormalizationConfig.model_fields[name].default


class ModelConfig(Section):
    """An encoder-decoder: each encoder stage has a decoder stage of the same resolution (decoder[0] undoes the last
    pooling)."""

    encoder: tuple[EncoderStageConfig, ...] = Field(min_length=1, max_length=8)
    """Stages from full resolution downwards."""
    neck: tuple[NeckLayerConfig, ...] = ()
    """Layers between the last encoder stage and the first decoder stage, at the lowest resolution. DeconvNet has there VGG16's
    fully connected layers as convolutions, and their mirror. Empty: none, as in SegNet."""
    decoder: tuple[StageConfig, ...] = Field(min_length=1, max_length=8)
    """Stages from the lowest resolution upwards. Each begins with an upsampling if the encoder stage that it mirrors pools."""
    upsampling: Literal["unpool", "bilinear", "deconvolution"] = "unpool"
    """The upsampling of a decoder stage. unpool: max-unpooling, by the pooling indices. Two ablations of SegNet's table 1 do
    without the indices. bilinear: fixed interpolation. deconvolution: learnt, with stride 2."""
    skips: Literal["none", "add"] = "none"
    """Connections between encoder and decoder besides the pooling indices. add: the map of an encoder stage before its pooling
    is added to the map of the mirroring decoder stage after its upsampling (Mao, Shen & Yang 2016). none: off."""
    kernel_size: Literal[1, 3, 5, 7, 9, 11] = 3
    """Side of every convolution in the stages, pixels."""
    head_kernel_size: Literal[1, 3, 5, 7] = 3
    """Side of the last convolution, which gives the class logits, pixels."""
    decoder_operation: Literal["deconvolution", "convolution"] = "deconvolution"
    """The layers of a decoder stage. At stride 1 the two compute the same functions, with flipped kernels."""
    decoder_relu: bool = True
    """A ReLU follows each layer of the decoder (SegNet-Basic: false)."""
    batch_norm: bool = True
    """Batch normalisation follows each layer of the stages and the neck (REDNet: false)."""
    normalization: NormalizationConfig = NormalizationConfig()
    """The normalisation of the input, values 0..255, inside the network."""
    encoder_weights: PathText | None = None
    """The initial weights of encoder and neck: vgg16 or vgg16_bn (torchvision, downloaded), a file with such weights, or a run
    folder or checkpoint of this program with the same encoder. null: off, random weights (He et al. 2015)."""
    weights: PathText | None = None
    """The initial weights of the whole network: a run folder or checkpoint of this program, also one with other classes, bands
    or another decoder. Each layer with the same name and shape is taken, and the head's rows of the classes with the same
    names; a table lists what was taken. Read only at the start of a run; excludes encoder_weights. null: off."""
    output: Literal["logits", "image", "residual"] = "logits"
    """The output of the network. logits: the values of the head, one per class. image: an image in 0..255, the values of the
    head times the standard deviation plus the mean of the normalisation. residual: the input minus the noise that the head
    estimates (Zhang et al. 2017, section 3)."""
    decoder_weights: Literal["he", "mirrored"] = "he"
    """The initial weights of the decoder. he: random (He et al. 2015). mirrored: each layer is the transpose of the encoder's
    layer that it undoes (Zeiler & Fergus 2014, section 2.1); a layer of another shape is random."""

    @model_validator(mode="after")
    def _one_start(self) -> ModelConfig:
        if self.weights is not None and self.encoder_weights is not None:
            raise ValueError("weights and encoder_weights both name the encoder's first weights; set one of them to null")
        return self

    @model_validator(mode="after")
    def _mirrored(self) -> ModelConfig:
        if len(self.encoder) != len(self.decoder):
            raise ValueError(f"{len(self.encoder)} encoder stages but {len(self.decoder)} decoder stages; each needs its mirror")
        growth = sum((1 if layer.operation == "deconvolution" else -1) * (layer.kernel_size - 1) for layer in self.neck)
        if growth != 0:
            raise ValueError(f"neck changes the size by {growth} pixels; its deconvolutions must add what its convolutions take")
        width = self.neck[-1].width if self.neck else self.encoder[-1].widths[-1]
        for index, (stage, mirror, skip) in enumerate(zip(self.decoder, self.encoder[::-1], self.has_skip[::-1], strict=True)):
            channels = mirror.widths[-1]
            remedy = f"let what comes before it end with {channels}"
            if self.upsampling == "unpool" and mirror.pool and width != channels:
                raise ValueError(f"decoder stage {index} unpools {width} channels by pooling indices of {channels}; {remedy}")
            if skip and width != channels:
                raise ValueError(f"decoder stage {index} adds a skip of {channels} channels to {width} channels; {remedy}")
            width = stage.widths[-1]
        return self

    @property
    def total_stride(self) -> int:
        """The number of pixels of the image, along an axis, for one pixel at the lowest resolution."""
        return 2 ** sum(stage.pool for stage in self.encoder)

    @property
    def has_skip(self) -> tuple[bool, ...]:
        """For each encoder stage, whether its output is added in the decoder.

        It is not where nothing stands between the two: after a last stage that neither pools nor has a neck behind it.
        """
        *others, last = self.encoder
        add = self.skips == "add"
        return (*[add] * len(others), add and (last.pool or bool(self.neck)))


Range = tuple[float, float]


class Bands(NamedTuple):
    """What the network sees of the bands of a picture."""

    channels: int = 3
    scale: Literal["picture", "dtype", "stored"] = "picture"  # what reading does to the values; stored: the network scales them
    ranges: tuple[Range, ...] = ()  # of each channel where they are scaled by the network: the values that become 0 and 255
    rgb: tuple[int, ...] = ()  # the numbers, from 1, of the channels that show R, G, B; empty: unknown

    @property
    def are_colors(self) -> bool:
        """Whether images are R, G, B in 0..255, uint8."""
        return self.channels == 3 and self.scale == "picture" and not self.rgb


RGB = Bands()


class DataConfig(Section):
    """A dataset in Pascal VOC's layout: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/<split>.txt."""

    root: PathText
    """The data folder. Relative paths start in the working folder, here and in cache_folder and encoder_weights; ~ and $NAME
    are not expanded."""
    classes: Literal["voc", "camvid", "sample", "none"] | tuple[str, ...] = Field(min_length=1, max_length=255)
    """A known class table, or the class names in the order of their ids. Left out, they are those of classes.yaml in the data
    folder. none: off, and the default of task denoise, whose pictures have no masks."""
    colors: tuple[tuple[Channel, Channel, Channel], ...] = ()
    """R, G, B of each class, for masks and overlays. Empty: the colours of the class table, or VOC's."""
    ignore_index: Annotated[int, Field(ge=0, le=255)] = IGNORE_INDEX
    """The value in this dataset's mask files of pixels that are neither trained nor scored (the ignored id)."""
    merge: dict[str, tuple[str, ...]] = {}
    """New class: the classes that it joins, e.g. {plant: [leaf, stem], ignore: [dust]}. The classes under the reserved name
    `ignore` are neither trained nor scored. The mask files are not changed: ids are replaced when a mask is read. A new class
    has the place and the colour of its first class by id, and the ids of the remaining classes are numbered anew. Empty:
    off."""
    channels: int = Field(default=3, ge=1, le=MAX_CHANNELS)
    """Number of bands that the network sees. 3: R, G and B; grey is repeated, alpha is dropped. 1: grey; colours become their
    luma. Any other number: each picture must have exactly this number of bands, alpha included."""
    scale: Literal["picture", "dtype", "train"] | Range | tuple[Range, ...] = "picture"
    """The values that become 0 and 255. picture: those of 8 bits stay; in a deeper picture its own smallest and largest value.
    dtype: the range of the stored type, 0 to 1 for floats. train: for each band the percentiles 0.1 and 99.9 over the train
    split; the run's config.yaml and checkpoints hold the values. [low, high], or one such pair for each band: these values.
    Task denoise takes pictures of 8 bits with picture, and of any depth with dtype."""
    rgb: tuple[BandNumber, BandNumber, BandNumber] | None = None
    """The numbers, from 1, of the bands that show red, green and blue: in previews, and for the first layer of pretrained
    weights. null: previews show the first three, and pretrained weights treat all bands alike where there are not three."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to evaluate on during training; its score selects the best checkpoint."""
    workers: int = Field(default=2, ge=0, le=256)
    """Processes that read and augment pictures. Their number does not change the samples. 0: off, the main process reads."""
    worker_timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without a batch after which the workers are considered hung."""
    cache: Literal["none", "disk"] = "none"
    """disk: training decodes each picture once, into a file of 4 bytes per pixel that all workers map into memory. none:
    off."""
    cache_folder: PathText | None = None
    """The folder of the file of data.cache. null: .segnet/ in the data folder."""
    balance: Probability = 0.0
    """Probability that a training crop is placed around a pixel of a class that is drawn among the classes of its picture, so
    that rare classes are seen more often. Segmentation only. 0: off, crops lie anywhere."""
    balance_power: Annotated[float, Field(ge=0, le=2)] = 0.5
    """A class is drawn with a probability proportional to (its share of the training pixels) ** -balance_power, in balance and
    in augment.copy_paste. 0: each class alike."""

    @field_validator("classes")
    @classmethod
    def _more_than_one(cls, classes: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(classes, str) and len(classes) == 1:
            both = "[background, …]" if classes[0] == "background" else f"[background, {classes[0]}]"
            raise ValueError(
                f"'{classes[0]}' alone, which a network answers everywhere; write {both}, the rest of a picture first, "
                "and where masks hold 0 and 255 make 255 their class 1: segnet convert MASKS --out DIR --map 255=1"
            )
        return classes

    @field_validator("merge")
    @classmethod
    def _of_known_classes(cls, merge: dict[str, tuple[str, ...]], info: ValidationInfo) -> dict[str, tuple[str, ...]]:
        classes = info.data.get("classes", ())
        names = CLASS_SETS.get(classes, NO_CLASSES).names if isinstance(classes, str) else classes
        if names and (fault := merge_fault(names, merge)):
            raise ValueError(fault)
        return merge

    @model_validator(mode="after")
    def _aligned(self) -> DataConfig:
        count = len(self.mask_classes)
        if self.colors and len(self.colors) != count:
            raise ValueError(f"{len(self.colors)} colors for {count} classes")
        if len(set(self.mask_classes.names)) != count:
            raise ValueError("two classes have the same name")
        ranges = self.bands.ranges
        if ranges and len(ranges) != self.channels:
            raise ValueError(f"scale: {len(ranges)} pairs for {self.channels} channels")
        if any(low >= high for low, high in ranges):
            raise ValueError("scale: write the smaller value first, then the larger one")
        if self.rgb and (max(self.rgb) > self.channels or len(set(self.rgb)) < 3):
            raise ValueError(f"rgb: {list(self.rgb)} are not three of the bands 1 to {self.channels}")
        if self.ignore_index < count:
            name = self.mask_classes.names[self.ignore_index]
            raise ValueError(f"ignore_index: {self.ignore_index} is the id of class '{name}'; see segnet convert --map")
        return self

    @property
    def bands(self) -> Bands:
        """What the network sees of the bands of a picture."""
        rgb = self.rgb or ()
        if self.scale in ("picture", "dtype"):
            return Bands(self.channels, self.scale, (), rgb)
        if self.scale == "train":
            return Bands(self.channels, "stored", (), rgb)
        pairs = tuple(pair for pair in self.scale if isinstance(pair, tuple))
        return Bands(self.channels, "stored", pairs or (cast(Range, self.scale),) * self.channels, rgb)

    @property
    def class_set(self) -> ClassSet:
        """The classes of the network, after `merge`."""
        return merge_classes(self.mask_classes, self.merge)

    @property
    def mask_classes(self) -> ClassSet:
        """The classes of the mask files: names and colours as one table."""
        if isinstance(self.classes, str):
            known = CLASS_SETS.get(self.classes, NO_CLASSES)
            return class_set(known.names, self.colors or known.colors, ignore_index=self.ignore_index)
        return class_set(self.classes, self.colors, ignore_index=self.ignore_index)


class AugmentConfig(Section):
    """Random changes of a training image and its mask. They depend on the seed, the epoch and the picture alone."""

    crop_size: tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]] = (320, 320)
    """Height and width of training images, pixels. Beyond the picture the image has the mean colour and the mask is
    ignored."""
    scale: tuple[Zoom, Zoom] = (0.5, 2.0)
    """Range of the zoom, drawn uniformly in its logarithm. 1 keeps the picture's resolution. SegNet's five poolings see 211
    pixels to each side: pictures of 500 pixels and more are learnt faster at a smaller scale, such as [0.25, 0.6] with
    inference.scales [0.4]. segnet plan chooses both."""
    shrink: tuple[Share, ...] = Field(default=(1.0,), min_length=1, max_length=100)
    """Progressive resizing (Tan & Le 2021, section 4): the run is divided into as many equal parts as there are numbers, and
    in each part crop_size (at least 16 pixels) and scale are multiplied by its number. [0.5, 1]: the first half of the run has
    images of half the height and width, whose steps are about four times as fast. [1]: off."""
    flip: Probability = 0.5
    """Probability of mirroring left and right."""
    vertical_flip: Probability = 0.0
    """Probability of mirroring top and bottom, for pictures without an upper side: cells, fields from above."""
    quarter_turn: Probability = 0.0
    """Probability of a turn by 90, 180 or 270 degrees, for pictures without an upper side."""
    copy_paste: Probability = 0.0
    """Probability that an object of a rare class, cut out of a crop of a random training picture, is pasted into the image.
    Rare is a class with fewer training pixels than the median class; an object is a connected component. See
    data.balance_power."""
    cutout: Probability = 0.0
    """Probability that a rectangle of 2 to 20 percent of the image gets the mean colour, and that its mask there is
    ignored."""
    jpeg: Probability = 0.0
    """Probability of JPEG compression, its quality drawn from 20 to 90."""
    brightness: Probability = 0.0
    """Brightness is multiplied by a factor from 1-x to 1+x, where x is this value. 0: off."""
    contrast: Probability = 0.0
    """Contrast is multiplied by a factor from 1-x to 1+x. 0: off."""
    saturation: Probability = 0.0
    """Saturation is multiplied by a factor from 1-x to 1+x. 0: off."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Hue is turned by -x to +x of the colour circle. 0: off."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """The image is turned by an angle from -x to +x, degrees. 180: pictures without an upright direction, such as from
    above."""
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Values, as parts of 255, are raised to a power drawn from 1/(1+x) to 1+x, uniformly in its logarithm."""
    blur: Probability = 0.0
    """Probability of a Gaussian blur, its standard deviation drawn from 0.1 to 2 pixels of the crop."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: {self.scale[0]} is above {self.scale[1]}; write the smaller first")
        return self


class NoiseConfig(Section):
    """The noise of task denoise. Training draws it anew for each sample, as a function of seed, epoch and picture. A picture
    that is scored has the same noise every time: that of numpy.random.RandomState(0). Noisy values are not clipped."""

    kind: Literal["gaussian", "poisson", "speckle", "jpeg"] = "gaussian"
    """gaussian: added, of one strength everywhere. poisson: of counted photons, its variance proportional to the value.
    speckle: multiplied, its standard deviation proportional to the value. jpeg: the artefacts of compression."""
    sigma: Sigma | tuple[Annotated[float, Field(ge=0, le=255)], Sigma] = 25.0
    """Standard deviation of the noise, in levels of 0..255; for poisson and speckle the one at white. Two numbers: training
    draws one between them for each sample."""
    quality: Quality | tuple[Quality, Quality] = 10
    """Quality of the compression with kind jpeg, 1 to 100, in place of sigma. Two numbers: training draws one between them for
    each sample."""
    scored: tuple[Sigma, ...] = Field(default=(), max_length=8)
    """The values of sigma (with kind jpeg, of quality) at which each picture is scored. Empty: the value of training, or the
    middle of its two numbers."""
    target: Literal["clean", "noisy"] = "clean"
    """The image that training compares with. noisy: the clean one with other noise of the same strength (Noise2Noise, Lehtinen
    et al. 2018)."""
    folder: PathText | None = None
    """A folder of recorded noisy pictures, in the data folder; each has the name and the size of its clean picture. null: off,
    noise is drawn."""

    @model_validator(mode="after")
    def _fits_together(self) -> NoiseConfig:
        for key, values in (("sigma", self.sigma), ("quality", self.quality)):
            if isinstance(values, tuple) and values[0] > values[1]:
                raise ValueError(f"{key}: {values[0]} is above {values[1]}; write the smaller first")
        if self.kind == "jpeg" and any(value < 1 or value > 100 for value in self.scored):
            raise ValueError("scored: a quality is 1 to 100")
        if self.folder and self.scored:
            raise ValueError("scored: recorded noise has no strength to choose; leave scored or folder out")
        if self.folder and self.target == "noisy":
            raise ValueError("target: noisy needs noise that is drawn; leave it or folder out")
        if self.kind == "jpeg" and self.target == "noisy":
            raise ValueError("target: noisy needs noise whose mean is the image, which JPEG's is not")
        return self


class LossConfig(Section):
    """The loss: cross-entropy over the pixels that are not ignored; for task denoise the error of each value."""

    kind: Literal["auto", "cross_entropy", "mse", "l1"] = "auto"
    """mse: the mean squared error of values / 255. l1: the mean absolute error. auto: cross_entropy for a segmentation, mse
    for denoising."""
    class_weights: Literal["none", "median_frequency", "enet"] = "none"
    """Weights per class, computed from the training masks. median_frequency: Eigen & Fergus 2015, section 6.3.2. enet: Paszke
    et al. 2016. none: off, every class has weight 1."""
    weight_power: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Exponent of class_weights. 1: the weights as published. 0.5: their square roots."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target that is spread evenly over the classes. 0: off."""
    lovasz: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the loss that is Lovász-softmax (Berman et al. 2018), which follows the mean IoU of each picture; the rest is
    cross-entropy. 0: off."""

    @model_validator(mode="after")
    def _has_effect(self) -> LossConfig:
        if self.lovasz == 1 and self.label_smoothing:
            raise ValueError("label_smoothing: a part of cross-entropy, of which lovasz: 1 leaves nothing; lower lovasz")
        return self


class OptimConfig(Section):
    """The optimizer and the schedule of its learning rate."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd: SGD with momentum. adamw: AdamW."""
    lr: Positive = 0.01
    """Peak learning rate."""
    encoder_lr_factor: Annotated[float, Field(ge=0, le=10)] = 1.0
    """The learning rate of the encoder is this multiple of lr; below 1 for pretrained weights. 0: off, the encoder is frozen
    with its batch statistics; a step is faster then and needs less memory, since the encoder has no gradients."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; AdamW's first beta."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    """Weight decay of the kernels. Biases and batch normalisation have no weight decay. 0: off."""
    schedule: Literal["polynomial", "cosine", "one_cycle", "constant"] = "polynomial"
    """The fall of the learning rate from its peak to zero. one_cycle: a cosine, and warmup rises along a cosine too. constant:
    it does not fall."""
    power: Positive = 0.9
    """Exponent of the polynomial schedule."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the run in which the learning rate rises linearly from zero to its peak. 0: off."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest L2 norm of the gradient; a longer gradient is scaled to it. 0: off."""


class TrainConfig(Section):
    """The training loop."""

    epochs: Epochs = 100.0
    """Number of times that each training picture is used."""
    batch_size: int = Field(default=8, ge=1, le=4096)
    """Pictures per step, over all ranks."""
    accumulate: int = Field(default=1, ge=1, le=4096)
    """Parts into which a step divides its batch, computed one after the other to need less memory. The gradient is that of the
    whole batch, except that batch normalisation uses the statistics of each part."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass (autocast); weights are float32. auto: the fastest one that the device has
    instructions for; a resumed run keeps its precision. float32: GPUs since NVIDIA's Ampere round the factors of convolutions
    to TF32, whose fractions have 10 bits, as torch does by default."""
    recompute: Recompute = "nothing"
    """Activations that the backward pass computes again, to need less memory. nothing: off. activations: only the outputs of
    convolutions are kept. stages: only the outputs of stages are kept. The gradients are the same."""
    kernel: TrainingKernel = "auto"
    """What computes the 3×3 convolutions of a float32 step on a processor. torch: torch's operations. native: the project's
    compiled kernel, where it is faster and can be compiled; train.precision auto then means float32. auto: native where
    train.precision comes out as float32 and the kernel can be compiled, else torch; a resumed run keeps its kernel."""
    compile: bool = False
    """Compile the network with torch.compile, once for each of up to eight image sizes; a size's first step takes minutes.
    Meant for GPUs, where it saves passes over memory between convolutions and, with accumulate 1, runs as a CUDA graph; on
    CPUs it was no faster."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights, which is then evaluated and saved as the best. 0: off."""
    deterministic: bool = False
    """Use only algorithms that give the same bits every time, also on a GPU, where they are slower."""
    observers: tuple[ObserverName, ...] = ("tensorboard",)
    """The programs that show the run: tensorboard (files in the run folder), mlflow and wandb (packages to install). If one
    fails during the run, a warning says so and training goes on. []: off; metrics.csv has all numbers in any case."""
    log_every_steps: int = Field(default=50, ge=1)
    """Steps from one log line to the next."""
    eval_every_epochs: Epochs = 1.0
    """Epochs from one evaluation on the val split to the next."""
    save_every_epochs: Epochs = 1.0
    """Epochs from one checkpoint to the next."""
    patience: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Epochs without a better score on the val split after which the run ends. The schedule of the learning rate is planned
    for all train.epochs, so an early end cuts its low rates off. 0: off."""
    max_minutes: Annotated[float, Field(ge=0)] = 0.0
    """Minutes after which training stops, with a checkpoint from which --resume continues. 0: off, no limit."""

    @model_validator(mode="after")
    def _one_plan(self) -> TrainConfig:
        if self.compile and self.recompute != "nothing":
            raise ValueError(f"recompute {self.recompute} has no effect with compile, which plans what is kept; choose one")
        if self.kernel == "native" and self.compile:
            raise ValueError("kernel native has no effect with compile, which compiles torch's operations; choose one")
        if self.kernel == "native" and self.precision not in ("auto", "float32"):
            raise ValueError(f"kernel native computes in float32, not in precision {self.precision}; choose one")
        return self


class InferenceConfig(Section):
    """From a picture to class probabilities, the same in validation, evaluation and prediction."""

    scales: tuple[Zoom, ...] = Field(default=(1.0,), min_length=1, max_length=8)
    """Zooms at which the network is applied to the picture; the probabilities are averaged at the picture's size. Their middle
    should be that of augment.scale."""
    flip: Literal["none", "horizontal", "dihedral"] = "none"
    """Views of the picture whose probabilities are averaged. horizontal: itself and its mirror image. dihedral: the eight
    pictures that mirrorings and quarter turns make of it. none: off, itself alone."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass. auto: the fastest one that the device has instructions for; on a processor float32 where
    the compiled kernel computes it faster than torch computes bfloat16. float32: as in train.precision, TF32 on GPUs. bfloat16:
    on processors with AVX512-BF16 the compiled kernel rounds the factors of its products to it, faster than in float32."""
    compile: bool = False
    """Compile the network with torch.compile, once for each of up to eight picture sizes; the first picture of a size takes
    minutes. Meant for many pictures of few sizes on GPUs, where it runs as a CUDA graph; on CPUs it was slower."""
    dropout_samples: int = Field(default=0, ge=0, le=1000)
    """Monte-Carlo dropout: number of passes with dropout whose probabilities are averaged (Bayesian SegNet: 50; 6 already
    help). 0: off, one pass without dropout."""
    window: int = Field(default=0, ge=0, le=65536)
    """Side of the windows into which a larger picture is divided, pixels; rounded up to a multiple of the network's stride.
    0: off for pictures of up to 2.4 megapixels; larger ones are divided into windows of 1536."""
    overlap: int | None = Field(default=None, ge=0, le=32768)
    """Pixels that neighbouring windows share, at most half a window. null: as many as the field of view needs, so that the
    result is that of the whole picture at scales [1.0]; a quarter of a window where that is more than half of one."""
    temperature: Annotated[float, Field(ge=0.05, le=20)] = 1.0
    """The logarithms of the mean probabilities are divided by it (Guo et al. 2017, section 4.2), so that a confidence of 0.8
    is right for 80 % of its pixels. segnet evaluate --calibrate finds it. 1: off. The mask does not depend on it."""
    min_region: int = Field(default=0, ge=0, le=100_000_000)
    """Connected regions of fewer pixels than this get the class with which they share the longest border, the smallest region
    first. The confidence of their pixels is not changed. 0: off. segnet evaluate --tune-cleanup finds values that help."""
    fill_holes: int = Field(default=0, ge=0, le=100_000_000)
    """Regions of fewer pixels than this that are enclosed by a single other region get its class. 0: off."""


class Config(Section):
    """A whole configuration. Keys that a file leaves out have their defaults."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Determines the order of samples, the augmentation, the initial weights and dropout."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The device to compute on. auto: the GPU when there is one. mps, an Apple GPU, is refused: it has no float64."""
    task: Literal["segmentation", "denoise"] = "segmentation"
    """What the network is for. segmentation: a class for each pixel. denoise: a picture without its noise."""
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    noise: NoiseConfig = NoiseConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        for name, values in self.model.normalization:
            if isinstance(values, tuple) and len(values) not in {self.data.channels, 3 if _is_default(name, values) else 0}:
                raise ValueError(f"model.normalization.{name}: {len(values)} values for data.channels {self.data.channels}")
        taken = sum(layer.kernel_size - 1 for layer in self.model.neck if layer.operation == "convolution")
        sides = [max(1, -(-side // self.model.total_stride) - taken) for side in self.augment.crop_size]
        if self.train.accumulate > self.train.batch_size:
            raise ValueError(f"train.accumulate: {self.train.accumulate} parts of a batch of {self.train.batch_size}")
        if self.model.batch_norm and sides[0] * sides[1] * (self.train.batch_size // self.train.accumulate) == 1:
            raise ValueError("this augment.crop_size leaves batch normalisation a single value; raise train.batch_size")
        if self.train.recompute == "activations" and not self.model.batch_norm:
            raise ValueError("train.recompute: activations has no effect without model.batch_norm; write stages")
        if self.inference.dropout_samples and not any(stage.dropout for stage in (*self.model.encoder, *self.model.decoder)):
            raise ValueError(
                "inference.dropout_samples: this network has no dropout (model/bayesian_segnet.yaml has); set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _of_one_task(self) -> Config:
        loss = self.loss
        if self.task == "segmentation":
            refused = {
                "data.classes: none are for task denoise; name the classes": self.data.classes == "none",
                "model.output: a segmentation has logits": self.model.output != "logits",
                f"loss.kind: {loss.kind} is for task denoise; write cross_entropy": loss.kind in ("mse", "l1"),
            }
        else:
            of_classes = [f"loss.{name}" for name, value in loss if name != "kind" and value != getattr(LossConfig(), name)]
            refused = {
                "data.classes: task denoise has none; leave them out, or write none": self.data.classes != "none",
                "data.merge: task denoise has no classes; leave it out": bool(self.data.merge),
                "data.scale: task denoise takes picture, for 8 bits, or dtype": self.data.scale not in ("picture", "dtype"),
                "model.output: logits are for classes; write residual, or image": self.model.output == "logits",
                "loss.kind: cross_entropy is for classes; write mse or l1": loss.kind == "cross_entropy",
                f"{', '.join(of_classes)}: for classes, of which task denoise has none; leave out": bool(of_classes),
                "data.balance and augment.copy_paste need masks; leave them out": self.data.balance + self.augment.copy_paste > 0,
            }
        for fault, is_there in refused.items():
            if is_there:
                raise ValueError(fault)
        return self
