import itertools
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from lgffem_core.report.style import save_figure


def panel(nudge: int):
    """Two clipped panels, one placed a few units in the last place beside where it belongs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(3, 2))
    place = left.get_position().bounds
    for _ in range(nudge):
        place = [np.nextafter(value, 1) for value in place]
    left.set_position(place)
    for ax in (left, right):
        ax.barh([0, 1], [1, 2])
        ax.imshow(np.arange(4.0).reshape(2, 2))
    plt.close(figure)
    return figure


def test_the_last_digit_of_the_layout_does_not_reach_the_file(tmp_path):
    for nudge in range(3):
        save_figure(panel(nudge), tmp_path / str(nudge))
    for nudge, suffix in itertools.product((1, 2), (".png", ".svg")):
        assert (tmp_path / f"{nudge}{suffix}").read_bytes() == (tmp_path / f"0{suffix}").read_bytes()


def test_every_clip_path_that_is_used_is_there_once(tmp_path):
    save_figure(panel(0), tmp_path / "figure")
    text = (tmp_path / "figure.svg").read_text()
    used = {part.split(")")[0] for part in text.split("url(#")[1:]}
    assert len(used) == 2
    assert all(text.count(f'id="{name}"') == 1 for name in used)


def test_a_matplotlibrc_of_the_user_changes_no_figure(tmp_path):
    """Neither where the variable names one nor where the current folder holds one."""
    code = (
        "import matplotlib.pyplot, sys, pathlib; from lgffem_core.report import style\n"
        "figure, ax = style.axes(); ax.plot([0, 1]); ax.set_title('a title')\n"
        "style.save_figure(style.sign(figure, 'x'), pathlib.Path(sys.argv[1]))"
    )
    (theirs := tmp_path / "theirs").mkdir()
    (theirs / "matplotlibrc").write_text("axes.facecolor: yellow\nfont.size: 30\ntext.usetex: True")
    places = {"plain": (tmp_path, {}), "named": (tmp_path, {"MATPLOTLIBRC": str(theirs)}), "here": (theirs, {})}
    for name, (cwd, more) in places.items():
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        subprocess.run(command, cwd=cwd, env={**os.environ, **more}, check=True)
    for name, suffix in itertools.product(("named", "here"), (".png", ".svg")):
        assert (tmp_path / name).with_suffix(suffix).read_bytes() == (tmp_path / f"plain{suffix}").read_bytes()


def test_another_place_is_another_file(tmp_path):
    save_figure(panel(0), tmp_path / "here")
    figure = panel(0)
    figure.axes[0].set_position([0.1, 0.2, 0.3, 0.5])
    save_figure(figure, tmp_path / "there")
    assert (tmp_path / "here.svg").read_bytes() != (tmp_path / "there.svg").read_bytes()


@pytest.mark.parametrize("backend", [None, "agg"])
def test_a_notebook_shows_a_figure_that_pyplot_did_not_make(backend, monkeypatch):
    """Jupyter teaches its kernel about figures only with the first that pyplot makes, and not with another backend."""
    monkeypatch.setenv("MPLBACKEND", backend) if backend else monkeypatch.delenv("MPLBACKEND", raising=False)
    cell = nbformat.v4.new_code_cell("from lgffem_core.report.diagram import Diagram\nDiagram(2, 1).figure")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, kernel_name="python3").execute()
    (output,) = cell.outputs
    assert "image/png" in output["data"]
