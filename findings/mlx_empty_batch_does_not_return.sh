#!/usr/bin/env bash
# MLX 0.32.4 on the CPU: BatchNorm in training mode often does not return for a batch of no samples. With a batch
# from NumPy four of five calls hung; with one from mx.zeros all returned.
# Expected: an empty output, or an error.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' numpy==2.4.6
cat > "$folder/empty.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np
from mlx import nn

x = mx.array(np.zeros((0, 1), np.float32)) if sys.argv[1] == "numpy" else mx.zeros((0, 1))
mx.eval(nn.BatchNorm(1)(x))
PY
for source in zeros numpy; do
  stopped=0
  for _ in 1 2 3 4 5; do
    code=0; timeout 10 "$folder/venv/bin/python" "$folder/empty.py" "$source" || code=$?
    if [ "$code" = 124 ]; then stopped=$((stopped + 1)); fi
  done
  echo "mlx 0.32.4, batch from $source: $stopped of 5 calls did not return within 10 seconds"
done
[ "$stopped" -gt 0 ]
