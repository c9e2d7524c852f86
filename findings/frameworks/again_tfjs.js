// Trains a batch norm of TensorFlow.js, written from its documentation alone; again_layers.py sends and reads the JSON.
// In: {batches: [{shape, values}], trainable, names}. Out: the arrays as base64 of float32, and the names of the weights.
// In: {batches, half}, where half names a situation. Out: {types}, those of the output and of the running variance.
const tf = require("@tensorflow/tfjs");

const encode = (tensor) => Buffer.from(Float32Array.from(tensor.dataSync()).buffer).toString("base64");
const decode = ({ shape, values }) => {
  const bytes = Buffer.from(values, "base64");
  return tf.tensor(new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)), shape);
};

async function namesInAFile(layer, shape) {
  const model = tf.sequential();
  model.add(tf.layers.inputLayer({ inputShape: shape.slice(1) }));
  model.add(layer);
  let names;
  await model.save(
    tf.io.withSaveHandler(async (artifacts) => {
      names = artifacts.weightSpecs.map(({ name }) => name);
      return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: "JSON" } };
    }),
  );
  return names;
}

function typesInHalfPrecision(input, situation) {
  const layer = tf.layers.batchNormalization(situation.startsWith("dtype") ? { dtype: "float16" } : {});
  const output = layer.apply(situation.startsWith("input") ? tf.cast(input, "float16") : input, { training: true });
  return [output.dtype, layer.weights.find((weight) => weight.originalName.endsWith("moving_variance")).read().dtype];
}

async function main(asked) {
  await tf.setBackend("cpu");
  const inputs = asked.batches.map(decode);
  if (asked.half) return { types: typesInHalfPrecision(inputs[0], asked.half) };
  const layer = tf.layers.batchNormalization({ trainable: asked.trainable });
  layer.build(inputs[0].shape);
  const byName = (name) => layer.weights.find((weight) => weight.originalName.endsWith(name)).read();
  const said = { mean0: encode(byName("moving_mean")), var0: encode(byName("moving_variance")) };
  for (const input of inputs) said.trained = encode(layer.apply(input, { training: true }));
  said.mean = encode(byName("moving_mean"));
  said.var = encode(byName("moving_variance"));
  said.evaluated = encode(layer.apply(inputs[inputs.length - 1], { training: false }));
  if (asked.names) said.names = await namesInAFile(layer, inputs[0].shape);
  return said;
}

main(JSON.parse(require("fs").readFileSync(0, "utf8"))).then(
  (said) => console.log(JSON.stringify(said)),
  (error) => console.log(JSON.stringify({ error: `${error.message}` })),
);
