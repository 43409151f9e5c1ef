"""The sections of the configuration: every key with its type, range and default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from segnet.classes import CLASS_SETS, IGNORE_INDEX, ClassSet, class_set

CLASSES_FILE = "classes.yaml"  # in a data folder: names, colors and ignore
LISTS = "ImageSets/Segmentation"  # in a data folder: the lists of its splits


PathText = Annotated[str, Field(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Channel = Annotated[int, Field(ge=0, le=255)]
Width = Annotated[int, Field(ge=1, le=65536)]
Positive = Annotated[float, Field(gt=0)]
Epochs = Annotated[float, Field(gt=0, le=1e6)]
Zoom = Annotated[float, Field(ge=0.1, le=10)]
Share = Annotated[float, Field(ge=0.1, le=1)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Recompute = Literal["nothing", "activations", "stages"]


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
    ignore_index: Annotated[int, Field(ge=0, le=255)] = IGNORE_INDEX
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
        if self.ignore_index < count:
            name = self.class_set.names[self.ignore_index]
            raise ValueError(f"ignore_index: {self.ignore_index} is the id of class '{name}'; see prepare_data.py convert --map")
        return self

    @property
    def class_set(self) -> ClassSet:
        """Names and colours as one table."""
        if isinstance(self.classes, str):
            known = CLASS_SETS[self.classes]
            return class_set(known.names, self.colors or known.colors, ignore_index=self.ignore_index)
        return class_set(self.classes, self.colors, ignore_index=self.ignore_index)


class AugmentConfig(Section):
    """Random changes of a training picture and its mask. Each picture of each epoch has its own, a function of the seed."""

    crop_size: tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]] = (320, 320)
    """Height and width of what the network trains on, pixels. Beyond the picture: mean colour, mask ignored."""
    scale: tuple[Zoom, Zoom] = (0.5, 2.0)
    """Range of the zoom, drawn uniformly in its logarithm; 1 keeps the picture's own resolution."""
    shrink: tuple[Share, ...] = Field(default=(1.0,), min_length=1, max_length=100)
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
    recompute: Recompute = "nothing"
    """What the backward pass computes again instead of keeping it: nothing; activations, so that only the outputs of convolutions
    are kept; stages, so that only the outputs of stages are. The gradients are the same."""
    compile: bool = False
    """Let torch.compile fuse the network, once for each of up to eight sizes; the first step of a size takes minutes."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights, which is then what is scored and kept as best; 0: none."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time, also on a GPU, where that costs time."""
    log_every_steps: int = Field(default=50, ge=1)
    """Steps between two log lines."""
    eval_every_epochs: Epochs = 1.0
    """Epochs between two evaluations on the val split."""
    save_every_epochs: Epochs = 1.0
    """Epochs between two checkpoints."""
    max_minutes: Annotated[float, Field(ge=0)] = 0.0
    """Stop after so many minutes, with a checkpoint that --resume continues from; 0: no limit."""

    @model_validator(mode="after")
    def _one_plan(self) -> TrainConfig:
        if self.compile and self.recompute != "nothing":
            raise ValueError(f"recompute {self.recompute} has no effect with compile, which plans what is kept; choose one")
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
