"""The data benchmark reads the pictures that it names and leaves the dataset as it was. No speed is asserted."""

from segnet.benchmarks import data
from segnet.benchmarks.data import benchmark_data, plain_batches, print_rates, print_workers, workers_needed
from segnet.tasks.choice import build_task
from segnet.training.data import open_train_set


def test_the_chosen_pictures_are_read_once_and_no_others(tiny_config, monkeypatch):
    dataset = open_train_set(tiny_config, build_task(tiny_config))
    ids, places = list(dataset.ids), list[int]()
    real = dataset.read
    monkeypatch.setattr(dataset, "read", lambda index: places.append(index) or real(index))
    data._read(dataset, [0, 2, 5], 3, 1)
    assert sorted(places) == [0, 2, 5]
    assert dataset.ids == ids


def test_chosen_places_come_from_all_over_a_split():
    assert data._spread_places(6, 3) == [0, 2, 4]
    assert data._spread_places(7, 2) == [0, 3]
    assert data._spread_places(3, 64) == [0, 1, 2]


def test_plain_batches_are_full(tiny_config):
    batches = list(
        plain_batches(open_train_set(tiny_config, build_task(tiny_config)), [0, 2, 4, 5], tiny_config.augment, 3, seed=0)
    )
    height, width = tiny_config.augment.crop_size
    assert [tuple(image.shape) for image, _ in batches] == [(3, 3, height, width)] * 2
    assert [tuple(mask.shape) for _, mask in batches] == [(3, height, width)] * 2


def test_each_way_has_a_rate_and_a_gpu_its_workers(tiny_config, capsys):
    document = benchmark_data(tiny_config, pictures=4, rounds=1)
    assert document["pictures"] == 4
    assert list(document["per_core"]) == ["plain PIL", "from files", "from cache", "from cache for a GPU"]
    assert document["per_core"]["plain PIL"]["times_pil"] == 1
    assert document["workers"] == {"count": 0}
    print_rates(document)
    assert "from cache" in capsys.readouterr().out
    needed = workers_needed({"from files": {"median": 10.0}}, 25.0)
    assert needed["workers_needed"] == {"from files": 3}
    print_workers(needed)
    assert "25 pictures/s from files: 3 workers" in capsys.readouterr().out
