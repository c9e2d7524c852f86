"""Data sets as tensors in memory: handwritten digits, MNIST, CIFAR-10, and synthetic data sets from papers."""

from bnlib.datasets.dataset import Dataset
from bnlib.datasets.files import DatasetError
from bnlib.datasets.idx_files import read_idx
from bnlib.datasets.images import cifar10, digits, mnist
from bnlib.datasets.random_scaling import randomly_scaled
from bnlib.datasets.registry import NAMES, load
from bnlib.datasets.synthetic import three_points, wide_variation

__all__ = [
    "NAMES",
    "Dataset",
    "DatasetError",
    "cifar10",
    "digits",
    "load",
    "mnist",
    "randomly_scaled",
    "read_idx",
    "three_points",
    "wide_variation",
]
