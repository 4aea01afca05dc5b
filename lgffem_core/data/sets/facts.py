"""What the data sets are said to hold: published counts and names, each with its source.

Nothing here is measured; a data set on disk is compared with these numbers where the profile asks for it.
"""

# Babaie et al., "Classification and Retrieval of Digital Pathology Scans: A New Dataset", CVPR workshops
# 2017 (arXiv:1705.07522): test patches of the scans s0 … s23, in order.
KIMIA_TEST_COUNTS = (
    65, 65, 65, 75, 15, 40, 70, 50, 60, 60, 70, 70, 70, 60, 60, 30, 45, 45, 25, 25, 65, 65, 65, 65,
)  # fmt: skip
KIMIA_SCANS = len(KIMIA_TEST_COUNTS)
KIMIA_TEST_TOTAL = 1325  # the same source: n_tot, the sum of the counts above
KIMIA_TRAIN_TOTAL = 22591  # the LGFFEM paper, section on data sets

# Gamper et al., "PanNuke Dataset Extension, Insights and Baselines", 2020 (arXiv:2003.10778); spelled as in
# the archives' types.npy. PathML writes "_" as "-" in file names (``file_tissue``).
PANNUKE_TISSUES = (
    "Adrenal_gland", "Bile-duct", "Bladder", "Breast", "Cervix", "Colon", "Esophagus", "HeadNeck", "Kidney",
    "Liver", "Lung", "Ovarian", "Pancreatic", "Prostate", "Skin", "Stomach", "Testis", "Thyroid", "Uterus",
)  # fmt: skip
PANNUKE_FOLDS = (1, 2, 3)
PANNUKE_FOLD_SIZES = (2656, 2523, 2722)  # length of types.npy in the archives of folds 1, 2, 3

# Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015 (ILSVRC2012).
IMAGENET_TRAIN_TOTAL = 1281167
IMAGENET_VAL_TOTAL = 50000
IMAGENET_CLASSES = 1000

# Spanhol et al., "A Dataset for Breast Cancer Histopathological Image Classification", IEEE TBME 2016, 63(7).
BREAKHIS_COUNTS = {40: 1995, 100: 2081, 200: 2013, 400: 1820}  # images by magnification, 7,909 in all

# Tsuneki and Kanavati, "Inference of captions from histopathological patches", 2022 (arXiv:2202.03432).
PATCHGASTRIC_PATCHES = 262777


def file_tissue(tissue: str) -> str:
    """A tissue as it stands in a prepared file's name: "_" separates fields there, so it becomes "-"."""
    return tissue.replace("_", "-")
