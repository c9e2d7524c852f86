// Trains a batch norm of TensorFlow.js on the batches that come as JSON, for again_layers.py; numbers travel as base64.
const tf = require("@tensorflow/tfjs");

const numbers = (text) => new Float32Array(new Uint8Array(Buffer.from(text, "base64")).buffer);
const text = (tensor) => Buffer.from(new Uint8Array(tensor.dataSync().slice().buffer)).toString("base64");

async function main() {
  await tf.setBackend("cpu");
  const batches = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const inputs = batches.map(({ shape, bytes }) => tf.tensor(numbers(bytes), shape));
  const layer = tf.layers.batchNormalization();
  layer.build(inputs[0].shape);
  const [, , mean0, var0] = layer.getWeights();
  const found = { mean0: text(mean0), var0: text(var0) };
  for (const input of inputs) found.trained = text(tf.tidy(() => layer.apply(input, { training: true })));
  const [, , mean, variance] = layer.getWeights();
  found.mean = text(mean);
  found.var = text(variance);
  found.evaluated = text(layer.apply(inputs.at(-1)));
  console.log(JSON.stringify(found));
}

main().catch((error) => console.log(JSON.stringify({ error: String(error.message) })));
