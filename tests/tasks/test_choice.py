"""The task that a configuration asks for."""

from segnet.tasks.choice import build_task
from segnet.tasks.segmentation import Segmentation


def test_the_task_of_a_configuration_is_segmentation_with_its_classes(tiny_config):
    task = build_task(tiny_config)
    assert isinstance(task, Segmentation)
    assert task.channels == 3
    assert task.best.name in task.logged
    assert {measure.name for measure in task.validation_counts(task.open_split("val")).measures()} >= set(task.logged)
    assert len(task.open_split("val")) == 3
