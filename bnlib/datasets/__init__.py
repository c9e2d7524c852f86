"""Data sets as tensors in memory: digits, MNIST, Fashion-MNIST, CIFAR-10, and synthetic data sets from papers."""

from bnlib.datasets.dataset import Dataset
from bnlib.datasets.files import DatasetError
from bnlib.datasets.idx_files import read_idx
from bnlib.datasets.images import cifar10, digits, fashion_mnist, mnist
from bnlib.datasets.random_scaling import randomly_scaled
from bnlib.datasets.registry import NAMES, load
from bnlib.datasets.synthetic import three_points, wide_variation

__all__ = [
    "NAMES",
    "Dataset",
    "DatasetError",
    "cifar10",
    "digits",
    "fashion_mnist",
    "load",
    "mnist",
    "randomly_scaled",
    "read_idx",
    "three_points",
    "wide_variation",
]
