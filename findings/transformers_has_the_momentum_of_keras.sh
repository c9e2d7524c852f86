#!/usr/bin/env bash
# transformers 5.24.0: the batch norms of EfficientNet, MobileNetV1 and MobileNetV2 are torch.nn.BatchNorm2d with the
# momentum of their Keras originals: 0.99, 0.9997 and 0.997. In Keras this is the weight of the old running statistics,
# in PyTorch that of the newest batch. So after a batch in train mode the running mean is that of this batch, up to 1 %,
# and fine-tuning ends with statistics of its last batch.
# Expected: the momentum 1 - 0.99 = 0.01 (0.0003, 0.003).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/momentum.py" <<'PY'
import torch
import transformers
from transformers import EfficientNetConfig, EfficientNetModel, MobileNetV1Config, MobileNetV1Model
from transformers import MobileNetV2Config, MobileNetV2Model

print("transformers", transformers.__version__, "torch", torch.__version__)
expected = {"EfficientNetModel": 0.99, "MobileNetV1Model": 0.9997, "MobileNetV2Model": 0.997}
for model in (
    EfficientNetModel(EfficientNetConfig(image_size=64, width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640)),
    MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25)),
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.35)),
):
    name = type(model).__name__
    norm = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mean((0, 2, 3)).detach()))
    model.train()
    torch.manual_seed(0)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64) + 1)
    part = float((norm.running_mean / seen[0]).median())
    print(f"{name}: momentum {norm.momentum}; after one batch the running mean is {part:.4f} of the batch's mean")
    assert norm.momentum == expected[name] and abs(part - expected[name]) < 1e-3, (norm.momentum, part)
PY
"$folder/venv/bin/python" "$folder/momentum.py"
