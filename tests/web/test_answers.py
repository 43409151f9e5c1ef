"""A server of restored pictures answers in each of its formats, and shows deep pictures in bytes."""

import io
import json
import struct

import numpy as np
import pytest
from helpers import tiny_config_for
from web_servers import save_network

from segnet.config.loading import override_config
from segnet.data.picture_encoding import encode_png
from segnet.inference.predictor import Predictor
from segnet.system.errors import UserError
from segnet.web.answers import PLANES, Question, answer, formats_of


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("denoiser")
    changes = ["task=denoise", "loss.kind=mse", "data.classes=none", "model.output=residual", "data.scale=dtype"]
    return Predictor(save_network(folder, override_config(tiny_config_for(folder / "nowhere"), changes), 3))


@pytest.fixture(scope="module")
def deep_png():
    values = np.random.default_rng(0).integers(0, 65536, (12, 20, 3), dtype=np.uint16)
    return encode_png(values)


@pytest.mark.parametrize("kind", formats_of("denoise"))
def test_a_deep_picture_is_restored_in_each_format(denoiser, deep_png, kind):
    if kind == "tiff":
        pytest.importorskip("tifffile", reason="no tifffile here")
    found = answer(denoiser, Question("deep.png", deep_png, kind, with_image=kind == PLANES))
    assert found.size == (12, 20)
    assert found.content_type


def test_the_planes_of_a_deep_picture_are_the_high_bytes(denoiser, deep_png):
    content = answer(denoiser, Question("deep.png", deep_png, PLANES, with_image=True)).content
    (length,) = struct.unpack_from("<I", content)
    planes = json.loads(content[4 : 4 + length])["planes"]
    assert planes == [["restored", 3], ["image", 3]]
    restored = np.frombuffer(content, np.uint8, 12 * 20 * 3, 4 + length).reshape(12, 20, 3)
    array = np.load(io.BytesIO(answer(denoiser, Question("deep.png", deep_png, "array")).content))
    assert array.dtype == np.uint16
    np.testing.assert_allclose(restored, array / 257, atol=0.51)


def test_what_a_format_does_not_hold_is_refused(denoiser):
    file = io.BytesIO()
    np.save(file, np.zeros((8, 8, 3), np.float32))
    with pytest.raises(UserError, match="which a PNG does not hold"):
        answer(denoiser, Question("float.npy", file.getvalue(), "restored"))
