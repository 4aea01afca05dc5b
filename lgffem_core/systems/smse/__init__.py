"""SMSE: similarity-based embeddings of images at several magnifications (arXiv:2107.01063)."""
