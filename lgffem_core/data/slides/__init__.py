"""From a user's whole slides, or folders of patches, to tiles whose place in the slide is known.

``finding`` says what a folder holds, ``reading`` reads a slide at a stated µm a pixel, ``tissue`` finds the tissue on
it, ``tiles`` lays a grid over that, ``patches`` takes patches that were cut before. What they give is alike: a sequence
of RGB images with ``positions``, row and column in the grid (see ``data.records``).

Slides are read by OpenSlide (openslide-python and openslide-bin; LGPL-2.1 and permissive parts, loaded as a library of
its own, so that this package stays under its licence). Of the libraries for tissue and tiles none is used. Asked beside
our locks in November 2026:

- LazySlide 0.13 (MIT, well kept) brings twenty-odd packages, AnnData, SpatialData and Zarr among them; beside our pins
  a resolver goes back to 0.10 with the first SpatialData of all.
- dlup 0.9 reads by two compiled libraries of its own instead of OpenSlide; neither reads what OpenSlide does.
- histolab 0.7 is of February 2024; beside our NumPy a resolver goes back to 0.2.
- TIAToolbox 2.1 brings a second OpenCV, which writes the same module as ours, Flask and Zarr; beside our pins a
  resolver goes back to 1.2.

What they would do for us is a threshold and a grid, some hundred lines on OpenCV, which we have.
"""
