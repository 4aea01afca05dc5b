"""Running the notebooks: what is to be done, in which order, what it left, and whether it still is that."""
