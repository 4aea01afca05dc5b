"""Procedural images in the layouts of the real data sets."""
