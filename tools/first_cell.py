# @title Fetch `bnlib`, the package of this book (needed in Colab and Kaggle only)
import importlib.util
import os
import subprocess
import sys

BOOK = ""  # the address of the book's repository

if importlib.util.find_spec("bnlib") is None:
    hosts = {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}
    if not BOOK or hosts.isdisjoint(os.environ):
        hint = "Open this notebook with `make lab` in a checkout of the book."
        raise ModuleNotFoundError(f"The package bnlib is missing. {hint}")
    subprocess.run(["git", "clone", "-q", "--depth=1", BOOK, "batch-norm-book"])
    pip = [sys.executable, "-m", "pip", "install", "-q", "-e"]
    subprocess.run([*pip, "./batch-norm-book[notebook]"], check=True)
    sys.path.insert(0, os.path.abspath("batch-norm-book"))
