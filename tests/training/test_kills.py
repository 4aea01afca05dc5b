"""The short form of ``benchmarks/kills.py``: a run under SIGKILL comes to the bits of one that nobody disturbs."""

from lgffem_core.base.project import PROJECT


def test_a_killed_run_comes_to_the_same_bits(forked):
    done = forked(PROJECT, "-m", "benchmarks.kills", "--kills", "3", "--workers", "0", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[-2:]]
    assert [(row[0], row[-1]) for row in rows] == [("0", "yes"), ("2", "yes")]
    assert all(int(row[1]) >= 3 and int(row[3]) >= 1 for row in rows)
    assert sum(int(row[2]) for row in rows) >= 1  # of the kills, in a save
