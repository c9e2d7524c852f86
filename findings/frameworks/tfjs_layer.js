// Batch norms of TensorFlow.js for tfjs_adapter.py: one command per line in, one answer per line out, both JSON.
const readline = require("readline");
const tf = require("@tensorflow/tfjs");

const layers = [];
const decoded = ({ shape, bytes }) => tf.tensor(new Float32Array(new Uint8Array(Buffer.from(bytes, "base64")).buffer), shape);
const encoded = (tensor) => ({
  shape: tensor.shape,
  bytes: Buffer.from(Float32Array.from(tensor.dataSync()).buffer).toString("base64"),
});

const commands = {
  make({ channels, options }) {
    const layer = tf.layers.batchNormalization(options);
    layer.build([null, channels]);
    return layers.push(layer) - 1;
  },
  call({ layer, input, training }) {
    return encoded(tf.tidy(() => layers[layer].apply(decoded(input), { training })));
  },
  statistics({ layer }) {
    return [layers[layer].movingMean, layers[layer].movingVariance].map((each) => encoded(each.read()));
  },
  freeze({ layer }) {
    layers[layer].trainable = false;
  },
  types({ options, type }) {
    const layer = tf.layers.batchNormalization(options);
    const output = layer.apply(tf.ones([4, 1]).cast(type), { training: true });
    return [output.dtype, layer.movingMean.dtype];
  },
  config() {
    const layer = tf.layers.batchNormalization({});
    layer.build([null, 1]);
    return { ...layer.getConfig(), names: layer.weights.map((each) => each.originalName) };
  },
};

async function main() {
  await tf.setBackend("cpu");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    let answer;
    try {
      answer = { value: commands[command.name](command) ?? null };
    } catch (error) {
      answer = { error: error.message };
    }
    process.stdout.write(`@${JSON.stringify(answer)}\n`);
  }
}

main();
