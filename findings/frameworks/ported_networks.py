"""Carry five networks from Keras, Flax and ONNX to PyTorch and back, with ``bnlib.port`` and without it.

    python ported_networks.py                 install the pinned versions, measure, print the result
    python ported_networks.py --write         and write it to data/ported_networks.json
    python ported_networks.py --keep FOLDER   keep the environment there, and use it if it is there
    PYTHONPATH=../.. python ported_networks.py --here   measure in this environment

``networks.py`` has the networks and trains them on the digits; ``ported_layers.py`` carries one layer to each
framework. With ``bnlib.port``, all numbers are largest differences relative to the largest value: of the outputs of the
network and its copy, of the running statistics after one more batch, and of the outputs after the way back. Without it,
each mistake is made alone, in a copy that is right otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

import measure

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "data" / "ported_networks.json"
ROWS = ("torch", "keras-jax", "flax-linen", "equinox-batch", "haiku", "onnxruntime")
SHOWN = ("torch", "keras", "flax", "equinox", "dm-haiku", "jax", "onnx", "onnxruntime", "h5py")
SMALL, BATCHES = 8, 300
"""Size and number of the batches with which training goes on."""


def packages() -> list[str]:
    """Return the pinned packages of ``frameworks.toml``, and what reads and writes files."""
    listed = tomllib.loads((HERE / "frameworks.toml").read_text())
    pinned = {package for row in ROWS for package in listed[row]["packages"]}
    return sorted({*pinned, "h5py==3.16.0", "onnxscript==0.7.2", "optax==0.2.8", "safetensors==0.8.0"})


def here() -> dict:
    """Measure in this environment."""
    import networks
    import ported_files
    import ported_layers
    import torch

    torch.set_num_threads(1)
    found = {name: _network(made()) for name, made in networks.NETWORKS.items()}
    layers = {name: ported_layers.carried(name) for name in ported_layers.ADAPTERS}
    measured = {"measured": datetime.date.today().isoformat(), "versions": {name: version(name) for name in SHOWN}}
    return {**measured, "networks": found, "layers": layers, "files": ported_files.differences()}


def _network(network) -> dict:
    import networks
    from ported_layers import difference

    from bnlib import port

    test, given = networks.DATA.test_x, network.settings
    before, states = network.evaluate(test.numpy()), port.norms(network.source, network.framework, **given)
    model = network.copy()
    port.load(model, states)
    result = {"title": network.title, "test error": _error(before), "outputs": difference(before, _outputs(model))}
    result["without"] = _mistakes(network, model, states)
    last = networks.DATA.train_x[:32]
    sizes = port.values_per_channel(model, last)
    port.load(model, states, values_per_channel=sizes)
    network.step(last.numpy())
    model.train()(last)
    after = port.norms(network.source, network.framework, **given)
    ours = port.norms(model, "torch")
    pairs = zip(after.values(), ours.items(), strict=True)
    result["statistics"] = max(
        difference(getattr(theirs, part), getattr(state.with_variance(theirs.variance, sizes[name]), part))
        for theirs, (name, state) in pairs
        for part in ("running_mean", "running_var")
    )
    network.fill(ours)
    result["outputs back"] = difference(_outputs(model), network.evaluate(test.numpy()))
    return result


def _mistakes(network, model, states) -> dict[str, dict[str, float]]:
    """Return what each mistake does to the outputs, relative to their standard deviation, and to the test error."""
    import networks
    import torch

    from bnlib import port

    own = next(iter(states.values()))
    found = {}
    right = _outputs(model)
    if own.eps != torch.nn.BatchNorm2d(1).eps:
        wrong = _changed(network, states, lambda layer: setattr(layer, "eps", torch.nn.BatchNorm2d(1).eps))
        found["eps of PyTorch"] = _told(wrong, right)
    if network.images and network.framework != "onnx":
        found["axis 1 in channels-last images"] = _told(networks.on_rows(_changed(network, states)), right)
    going_on = _going_on(_changed(network, states))
    if not port.conventions.convention(network.framework).weighs_new:
        literal = round(1 - own.momentum, 6)
        wrong = _going_on(_changed(network, states, lambda layer: setattr(layer, "momentum", literal)))
        found[f"momentum {literal:g} as it is"] = _told(wrong, _outputs(going_on))
    if own.variance == "biased":
        biased = _going_on(_changed(network, states))
        kept = port.norms(biased, "torch")
        sizes = port.values_per_channel(biased, _small(0))
        port.load(biased, {name: each.with_variance("biased", sizes[name]) for name, each in kept.items()})
        factor = max(size / (size - 1) for size in sizes.values())
        told = _told(going_on, _outputs(biased))
        found["unbiased variance"] = told | {"variance larger by": factor}
    return found


def _changed(network, states, change=lambda layer: None):
    from bnlib import port
    from bnlib.port.objects import torch_norms

    model = network.copy()
    port.load(model, states)
    for _, layer in torch_norms(model):
        change(layer)
    return model


def _small(number: int):
    import networks
    import torch

    generator = torch.Generator().manual_seed(number)
    rows = torch.randperm(len(networks.DATA.train_x), generator=generator)[:SMALL]
    return networks.DATA.train_x[rows]


def _going_on(model):
    """Let small batches move the statistics, as training would; the weights rest."""
    import torch

    model.train()
    with torch.no_grad():
        for number in range(BATCHES):
            model(_small(number))
    return model


def _told(wrong, right) -> dict[str, float]:
    outputs = _outputs(wrong)
    off = float(((outputs - right) ** 2).mean() ** 0.5 / right.std())
    return {"outputs off by": off, "test error": _error(outputs), "test error of the right copy": _error(right)}


def _outputs(model):
    import networks
    import torch

    with torch.no_grad():
        return model.eval()(networks.DATA.test_x).numpy()


def _error(outputs) -> float:
    import networks

    return float((outputs.argmax(1) != networks.DATA.test_y.numpy()).mean())


def rounded(value):
    """Return a result with four digits in each number."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    """Install, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="measure in this environment")
    parser.add_argument("--write", action="store_true", help=f"write data/{RESULT.name}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the environment in this folder")
    chosen = parser.parse_args()
    if chosen.here:
        found = rounded(here())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (chosen.keep or Path(temporary)).resolve()
            python = measure.environment(folder, {"packages": packages()}, pinned=True)
            settings = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "CUDA_VISIBLE_DEVICES": ""}
            ran = subprocess.run([python, __file__, "--here"], env=settings, check=True, capture_output=True, text=True)
            found = json.loads(ran.stdout[ran.stdout.index("{\n") :])
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.write:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
