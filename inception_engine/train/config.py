"""Every key of a training: one dataclass is the source of the YAML file, of the options and of what is printed.

What is given as an option stands before the file, the file before the defaults.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from inception_engine.packages import load
from inception_engine.spec import PRESETS, Spec
from inception_engine.train.errors import ConfigError
from inception_engine.train.keys import as_yaml, check, from_document, key

if TYPE_CHECKING:
    from inception_engine.network import Preprocess, Shape
    from inception_engine.train.augment import Augmentation

# Keys that change the variant, as a Spec has them; and those that an Augmentation has.
VARIANT = ("norm", "third_branch", "pool_kernels", "pool_padding", "width", "input_size")
AUGMENTATION = ("crop", "area", "aspect", "interpolations", "mirror", "brightness", "contrast", "saturation",
                "lighting")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the paper's where it gives them (sections 5 and 6). Raises ConfigError."""

    data: str = key(
        "digits",
        "a folder with train/ and val/ in it, or with a folder for each class; or digits: scikit-learn's, unless a "
        "file or folder here has that name",
    )
    output: str = key("runs/googlenet", "folder for checkpoints, logs and the trained network", free=True)
    seed: int = key(0, "of weights, order of images, augmentation and dropout", least=0, most=2**32 - 1)
    workers: int = key(0, "processes that read images; 0: the training's own", least=0, most=1024, free=True)
    skip_unreadable: bool = key(False, "leave out images that cannot be read, and say so", free=True)

    variant: str = key("lrn", "lrn (the paper's network), plain or torchvision; the next six change it")
    norm: str | None = key(None, "lrn, batch or none")
    third_branch: int | None = key(None, "kernel of the branch that the paper calls 5x5: 5 or 3")
    pool_kernels: tuple[int, ...] | None = key(None, "of the four max-pools between modules, 3 or 2 each")
    pool_padding: str | None = key(None, "ceil or none")
    width: float | None = key(None, "multiplies channel counts")
    input_size: int | None = key(None, "height and width of the network's input, in pixels")
    input_channels: Literal[1, 3] | None = key(None, "3 for RGB, 1 for grey; 3, or start's")
    start: str | None = key(None, "network or checkpoint to start from; the variant is its own")
    freeze: str | None = key(None, "last layer or whole module that keeps start's weights, as pool2 or 4a")
    mean: tuple[float, ...] | None = key(None, "subtracted from pixels, 0 to 255; of ImageNet, or start's")
    std: tuple[float, ...] | None = key(None, "by which pixels are then divided; of ImageNet, or start's")
    resize: int | None = key(
        None, "shorter side before validation's centre crop; 8/7 of the input, or as start's", least=1
    )

    crop: bool = key(True, "train on patches of images; without it on validation's centre crop")
    area: tuple[float, ...] = key((0.08, 1.0), "least and largest share of the image's area in a patch")
    aspect: tuple[float, ...] = key((3 / 4, 4 / 3), "least and largest width over height of a patch")
    interpolations: tuple[str, ...] = key(
        ("bilinear", "area", "nearest", "cubic"), "one of them resizes a patch"
    )
    mirror: bool = key(True, "every other image, left to right; not for digits or text")
    brightness: float = key(0.5, "factors within 1 plus or minus this; 0: off", least=0, most=1)
    contrast: float = key(0.5, "as brightness", least=0, most=1)
    saturation: float = key(0.5, "as brightness", least=0, most=1)
    lighting: float = key(0.1, "deviation of the lighting noise, of principal components; 0: off", least=0)

    auxiliary: bool = key(True, "train with the auxiliary heads after 4a and 4d")
    auxiliary_weight: float = key(0.3, "of the loss of each auxiliary head", least=0)
    dropout: float = key(0.4, "before the classifier", least=0, most=0.99)
    auxiliary_dropout: float = key(0.7, "in the auxiliary heads", least=0, most=0.99)

    epochs: int = key(90, "over the data", least=1, free=True)
    batch: int = key(256, "images in a step, of all processes together", least=1)
    learning_rate: float = key(0.01, "behind the warm-up, before its decay", least=0)
    momentum: float = key(0.9, "of SGD", least=0, most=1)
    decay: float = key(0.96, "the learning rate is multiplied by it", least=0, most=1)
    decay_epochs: int = key(8, "after each so many epochs", least=1)
    warm_up: float = key(0.0, "epochs in which the learning rate rises from 0", least=0)
    weight_decay: float = key(2e-4, "of weights; biases and norms have none", least=0)
    clip: float = key(0.0, "largest norm of the gradient; 0: any", least=0)
    label_smoothing: float = key(0.0, "share of the target that is spread over all classes", least=0, most=1)
    average: Literal["polyak", "exponential", "none"] = key("polyak", "of the weights, as the result")
    average_from: int | None = key(None, "epochs before averaging begins; two thirds of all", least=0)
    average_decay: float = key(0.9999, "of the exponential average", least=0, most=1)
    average_batches: int = key(200, "batches, an epoch's at most, for its batch-norm statistics", least=1)

    device: str = key("auto", "cpu, cuda or cuda:N; auto: a GPU if there is one", free=True)
    threads: int = key(0, "of PyTorch on the CPU; 0: its own choice", least=0, free=True)
    precision: Literal["fp32", "bf16", "fp16"] = key("fp32", "bf16, fp16: mixed; weights stay float32")
    channels_last: bool = key(False, "activations in memory: pixels before channels", free=True)
    compile: bool = key(False, "the model by torch.compile, whose dropout draws its own numbers")

    validate_every: int = key(1, "epochs between validations", least=1, free=True)
    save_every: int = key(0, "steps between checkpoints in an epoch; 0: at its end alone", least=0, free=True)
    keep: int = key(2, "checkpoints that are kept", least=1, free=True)
    log_every: int = key(20, "steps between rows of the log", least=1)
    tensorboard: bool = key(True, "write TensorBoard's event files, too", free=True)

    derived: ClassVar[bool] = False  # of an instance: average_from was not given, and follows from epochs

    def __post_init__(self) -> None:
        if self.average_from is None and isinstance(self.epochs, int):
            object.__setattr__(self, "derived", True)
            object.__setattr__(self, "average_from", 2 * self.epochs // 3)
        check(self)
        if self.variant not in PRESETS:
            raise ConfigError(f"unknown variant {self.variant!r}; there is {', '.join(PRESETS)}")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(
                f"std is {','.join(map(str, self.std))}: pixels are divided by it, give more than 0"
            )
        if self.start is None and self.freeze is not None:
            raise ConfigError("freeze keeps the weights of a network to start from: give start, too")

    def spec(self, classes: int) -> Spec:
        """The network, without ``start``. Raises SpecError."""
        given = {name: getattr(self, name) for name in VARIANT}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(
            PRESETS[self.variant], classes=classes, input_channels=self.input_channels or 3, **changes
        )

    def augmentation(self, input_shape: Shape, preprocess: Preprocess) -> Augmentation:
        """Of a network with this input and preprocessing. Raises ArgumentError."""
        from inception_engine.train.augment import Augmentation

        keys: dict[str, Any] = {name: getattr(self, name) for name in AUGMENTATION}
        return Augmentation(input_shape=input_shape, preprocess=preprocess, **keys)

    def yaml(self) -> str:
        return as_yaml(self)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys that a YAML file gives. Raises ConfigError and OSError."""
    yaml = load("yaml")
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        raise ConfigError(f"{path}: not a file")
    with open(path, encoding="utf-8") as file:
        try:
            document = yaml.safe_load(file)
        except RecursionError:
            raise ConfigError(f"{path}: not YAML: lists in lists, too deep") from None
        except (
            yaml.YAMLError,
            ValueError,
        ) as error:  # of text that is not UTF-8, and of dates that do not exist
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: no keys in it; inception train --print-config shows all")
    try:
        return from_document(Config, document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
