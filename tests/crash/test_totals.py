"""How many trials there were: the last file of the folder, whose files pytest runs in the order of their names."""

from crash_lab import TRIALS


def test_count(lab, capsys):
    with capsys.disabled():
        print(f"\ncrash suite ({TRIALS} trials): " + ", ".join(f"{number} {what}" for what, number in sorted(lab.counts.items())))
