// The pictures of the inside of a network: histograms of a channel, statistics of all channels, gradients of all layers.
import { svg } from "./elements.js";
import { Plot, words } from "./plot.js";
import { short } from "./quantities.js";

const HEIGHT = 150;
const BOTTOM = 112;
const SIDE = 44;

class Bars extends Plot {
  constructor(label, axis) {
    super(label, HEIGHT);
    Object.assign(this, { axis, bottom: BOTTOM });
  }

  // A bar for each number between 0 and 1, with its words; `ends` stand below the first and the last bar.
  bars(heights, texts, ends) {
    const wide = (this.width - 2 * SIDE) / heights.length;
    const left = (i) => SIDE + i * wide;
    const bars = heights.map((height, i) =>
      svg("rect", {
        x: left(i) + 0.5,
        y: BOTTOM - 100 * height,
        width: Math.max(1, wide - 1),
        height: 100 * height,
        class: "bnb-bar",
      }),
    );
    const line = svg("path", { d: `M${SIDE} ${BOTTOM}H${this.width - SIDE}`, stroke: "currentColor" });
    const below = ends.map((text, i) =>
      words(ends.length === 1 ? this.width / 2 : left(i * (heights.length - 1)) + wide / 2, BOTTOM + 15, text),
    );
    const parts = [...bars, line, ...below, words(this.width / 2, HEIGHT - 6, this.axis)];
    return { parts, places: texts.map((text, i) => ({ x: left(i) + wide / 2, text })) };
  }
}

// The values of one channel over the samples of a batch.
export class Histogram extends Bars {
  put({ low, high, counts }, channels, channel) {
    const bins = counts.length / channels;
    Object.assign(this, { low, high, bins, row: counts.subarray(channel * bins, (channel + 1) * bins), ready: true });
    this.draw();
  }

  content() {
    const { low, high, bins } = this;
    const row = [...this.row];
    const most = Math.max(1, ...row);
    const samples = row.reduce((sum, count) => sum + count, 0);
    const edge = (i) => short(low + ((high - low) * i) / bins);
    const texts = row.map((count, i) => `Values from ${edge(i)} to ${edge(i + 1)}: ${count} of ${samples} samples.`);
    return this.bars(
      row.map((count) => count / most),
      texts,
      [edge(0), edge(bins)],
    );
  }
}

// The norm of the gradient of each linear layer's weights, on a logarithmic scale over eight powers of ten.
export class Gradients extends Bars {
  put(gradients) {
    Object.assign(this, { gradients, ready: gradients.length > 0 });
    if (!this.ready) this.picture.textContent = "There are gradients after the first step.";
    this.draw();
  }

  content() {
    const { gradients } = this;
    const sizes = gradients.map(({ weight }) => (Number.isFinite(weight) && weight > 0 ? Math.log10(weight) : -6));
    const names = { weight: "weights", bias: "biases", gamma: "gamma", beta: "beta" };
    const texts = gradients.map((norms, i) => {
      const known = Object.entries(names).filter(([key]) => norms[key] !== null && norms[key] !== undefined);
      return `Linear layer ${i + 1}: gradient norm of the ${known.map(([key, name]) => `${name} ${short(norms[key])}`).join(", ")}.`;
    });
    const heights = sizes.map((size) => Math.min(1, Math.max(0.01, (size + 6) / 8)));
    const ends = gradients.length > 1 ? ["layer 1", `layer ${gradients.length}`] : ["layer 1"];
    return this.bars(heights, texts, ends);
  }
}

const deviation = (variance) => short(Math.sqrt(variance));

// Means of the newest batch and running means: a dot and a line for each channel.
export class ChannelStatistics extends Plot {
  constructor(label, choose) {
    super(label, HEIGHT);
    this.bottom = BOTTOM;
    this.choose = choose;
    this.picture.addEventListener("click", () => this.cursor.index !== null && choose(this.cursor.index));
    this.picture.addEventListener(
      "keydown",
      ({ key }) => key === "Enter" && this.cursor.index !== null && choose(this.cursor.index),
    );
  }

  put(statistics, color) {
    Object.assign(this, { statistics, color, ready: true });
    this.draw();
  }

  content() {
    const { batchMean, batchVariance, runningMean, runningVariance } = this.statistics;
    const all = [...batchMean, ...runningMean].filter(Number.isFinite);
    const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
    const x = (i) => SIDE + ((this.width - 2 * SIDE) * (i + 0.5)) / batchMean.length;
    const y = (value) => BOTTOM - 4 - (92 * (value - low)) / (high - low || 1);
    const parts = [svg("path", { d: `M${SIDE} ${y(0)}H${this.width - SIDE}`, stroke: "currentColor", opacity: 0.4 })];
    const places = [];
    batchMean.forEach((mean, i) => {
      if (Number.isFinite(runningMean[i])) {
        parts.push(
          svg("path", { d: `M${x(i) - 2} ${y(runningMean[i])}h4`, stroke: "currentColor", "stroke-width": 2 }),
        );
      }
      if (Number.isFinite(mean)) parts.push(svg("circle", { cx: x(i), cy: y(mean), r: 2, fill: this.color }));
      places.push({
        x: x(i),
        text:
          `Channel ${i}: mean of the batch ${short(mean)}, running mean ${short(runningMean[i])}; standard deviation of the ` +
          `batch ${deviation(batchVariance[i])}, running ${deviation(runningVariance[i])}.`,
      });
    });
    parts.push(words(SIDE - 3, y(high) + 4, short(high), { "text-anchor": "end", "font-size": 11 }));
    parts.push(words(SIDE - 3, y(low) + 4, short(low), { "text-anchor": "end", "font-size": 11 }));
    parts.push(words(this.width / 2, HEIGHT - 6, `channel 0 to ${batchMean.length - 1}`));
    return { parts, places };
  }
}
