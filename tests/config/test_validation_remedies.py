"""The remedy in the error for a value or key that is nearly right."""

from __future__ import annotations

import pytest
from helpers import refused

from segnet.config.loading import load_config
from segnet.system.errors import ExitCode


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optim.learning_rate=2", "did you mean 'lr'?"),  # by its meaning
        ("train.learning_rate=2", "did you mean 'optim.lr'?"),
        ("train.lr=2", "did you mean 'optim.lr'?"),  # in another section
        ("train.workers=2", "did you mean 'data.workers'?"),
        ("train.epoch=2", "did you mean 'epochs'?"),  # nearly the same
        ("train.batch=2", "did you mean 'batch_size'?"),
        ("train.xyz=2", "known here: epochs, batch_size"),
        ("learning_rate=2", "did you mean 'optim.lr'?"),
        (
            "augment.crop_size=160",
            "augment.crop_size: found 160, should be a list of 2, each a whole number from 16 to 8192, such as [160, 160] – "
            "height and width of training images, pixels",
        ),
        ("augment.crop_size=[160]", "found [160], should be a list of 2"),
        ("augment.crop_size=[16, 16, 16]", "found [16, 16, 16], should be a list of 2"),
        ("inference.scales=1", "such as [1]"),
        ("augment.shrink=half", "such as [1.0]"),
    ],
)
def test_the_value_or_key_that_was_meant_is_named(override: str, told: str) -> None:
    with refused(ExitCode.CONFIG, told):
        load_config("sample", [override])
