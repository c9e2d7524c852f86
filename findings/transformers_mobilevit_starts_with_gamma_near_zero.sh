#!/usr/bin/env bash
# transformers 5.24.0: MobileViT and MobileViTV2 draw the gammas of their batch norms from a normal distribution with
# standard deviation 0.02, as if they were the weights of a convolution. So in a new model the variances fall below the
# eps of batch norm within a few layers, and most of its batch norms no longer normalise.
# Expected: gamma = 1, as in torch.nn.BatchNorm2d.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/gamma.py" <<'PY'
import torch
import transformers
from transformers import MobileViTConfig, MobileViTModel, MobileViTV2Config, MobileViTV2Model

print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
x = torch.randn(8, 3, 64, 64)


def seen(model):
    """The gammas, and the median variance of the input of each batch norm in train mode."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    variances = []
    for norm in norms:
        norm.register_forward_pre_hook(
            lambda module, inputs: variances.append(float(inputs[0].var((0, 2, 3)).median()))
        )
    with torch.no_grad():
        model.train()(x)
    return torch.cat([norm.weight.detach() for norm in norms]), variances


for model in (MobileViTModel(MobileViTConfig()), MobileViTV2Model(MobileViTV2Config(width_multiplier=0.5))):
    gamma, variances = seen(model)
    below = sum(variance < 1e-5 for variance in variances)
    print(
        f"{type(model).__name__}: gamma {float(gamma.mean()):.3f} +- {float(gamma.std()):.3f}; the variance is below "
        f"eps = 1e-5 in {below} of {len(variances)} batch norms"
    )
    assert abs(float(gamma.mean())) < 0.01 and 0.015 < float(gamma.std()) < 0.025 and 2 * below > len(variances)
PY
"$folder/venv/bin/python" "$folder/gamma.py"
