"""Fixtures that many tests share. Checks on shared material skip, saying so, where it is absent."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder of real tiles and weights that lies beside the checkout on some machines."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared (real tiles and weights) is not on this machine")
    return SHARED
