"""Encoder-decoder semantic segmentation: train, evaluate, predict. See README.md and `scripts/`."""

from segnet.checkpoint import load_model
from segnet.config import load_config
from segnet.evaluation import evaluate
from segnet.models import build_model
from segnet.prediction import Predictor

__all__ = ["Predictor", "build_model", "evaluate", "load_config", "load_model"]
