# Does nothing where bnlib is installed; fetches the book in Colab and Kaggle.
import importlib.util
import os
import subprocess
import sys

BOOK = ""  # the address of the book's repository

if importlib.util.find_spec("bnlib") is None:
    hosts = {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}
    if not (BOOK and hosts & os.environ.keys()):
        raise ModuleNotFoundError(
            "This notebook needs bnlib, the package of its book. In a checkout of "
            "the book, `make lab` opens it with everything in place; for another "
            "environment, run pip install -e '.[notebook]' there. In Colab or "
            "Kaggle, set BOOK above to the address of the book's repository."
        )
    if not os.path.exists("batch-norm-book"):
        clone = ["git", "clone", "--quiet", "--depth=1", BOOK, "batch-norm-book"]
        subprocess.run(clone, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable"]
    subprocess.run([*pip, "./batch-norm-book[notebook]"], check=True)
    sys.path.insert(0, os.path.abspath("batch-norm-book"))
