"""The package as a whole."""

import subprocess
import sys


def test_layers_models_and_local_data_need_only_torch_and_numpy():
    """A GPU machine need not have what the notebooks draw and slide with."""
    blocked = "ipywidgets matplotlib sklearn pooch tqdm IPython".split()
    lines = [f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"]
    lines += ["import bnlib, bnlib.reference, bnlib.datasets, bnlib.models, bnlib.training"]
    lines += ["bnlib.training.fit(bnlib.models.mlp((3, 4, 3), bnlib.BatchNorm), bnlib.datasets.load('three_points'),"]
    lines += ["    batch_size=3, lr=0.1, epochs=1, progress=False)"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
