"""Where the checkout is, and where a run's files go."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]  # the checkout: notebooks/, params/, results/
OUTPUT = "LGFFEM_OUTPUT"  # environment variable: another folder for artifacts/ and results/
