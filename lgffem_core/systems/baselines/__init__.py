"""The baselines of Table 2: DenseNet-121, its barcode, and mixed attention with multi-similarity loss."""
