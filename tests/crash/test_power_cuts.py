"""A power cut loses no save, whatever the disk had not written yet."""

import random
import shutil

from crash_lab import SHORT, WHOLE, check_power_cuts


def test_a_power_cut_loses_no_save(lab, tmp_path):
    folders = check_power_cuts(lab.operations(SHORT), tmp_path)
    lab.count("folders after a power cut", len(folders))
    for what in random.Random(0).sample(sorted(folders), min(len(folders), 100 if WHOLE else 4)):
        run = tmp_path / "run"
        run.mkdir()
        for name, content in folders[what].items():
            (run / name.replace("PID", "4711")).write_bytes(content)
        lab.finish(run, SHORT, what)
        shutil.rmtree(run)
        lab.count("folders resumed after a power cut")


def test_the_run_folder_itself_survives_a_power_cut(lab):
    """The name of a new folder is safe only once its parent is synced; before the first save ends."""
    operations = list(map(str, lab.operations(SHORT)))
    assert "mkdir ." in operations
    first_save = next(n for n, text in enumerate(operations) if text.startswith("rename") and text.endswith(" last.pt"))
    assert "fsync .." in operations[:first_save]
