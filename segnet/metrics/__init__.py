"""Metrics computed from counts that add up over images and ranks."""

from segnet.metrics.confusion import ConfusionMatrix, Scores

__all__ = ["ConfusionMatrix", "Scores"]
