// The inside of a network while it trains: activations, statistics, gradients and predictions.
import { element } from "./elements.js";
import { ChannelStatistics, Gradients, Histogram } from "./inside_plots.js";
import { Predictions } from "./predictions.js";
import { send } from "./session.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const PAUSE = 250; // between two looks, in milliseconds
const CALM_PAUSE = 2000;
const MEANS =
  "Means of all channels: a dot for the newest batch, a dash for the running mean. Click a channel, or press Enter, to choose it.";
const NO_STATISTICS = "This network has no statistics of its channels.";
const DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

const menu = (label, changed) => {
  const select = element("select", { autocomplete: "off" });
  select.addEventListener("change", changed);
  return { select, element: element("label", { className: "bnb-field" }, element("span", {}, label), select) };
};

// Look inside one run of a trainer; `pick(runs)` chooses the runs that the reader can choose from.
export class Inside {
  constructor(trainer, title, pick) {
    Object.assign(this, { trainer, pick, run: null, layer: 0, channel: 0 });
    this.runs = menu("run", () => this.look());
    this.layers = menu("hidden layer", () => this.look());
    this.channels = menu("channel", () => this.choose(Number(this.channels.select.value)));
    this.before = new Histogram("Histogram of the channel before the normalisation", "before the normalisation");
    this.after = new Histogram("Histogram of the channel after the normalisation", "after the normalisation");
    this.statistics = new ChannelStatistics("Running and batch statistics by channel", (channel) =>
      this.choose(channel),
    );
    this.gradients = new Gradients("Gradient norms by layer", "gradient norm of the weights, from 10⁻⁶ to 100");
    this.predictions = new Predictions();
    this.note = element("p", { className: "bnb-reading" });
    this.means = element("p");
    this.body = element(
      "div",
      { hidden: true },
      element("div", { className: "bnb-fields" }, this.runs.element, this.layers.element, this.channels.element),
      element("div", { className: "bnb-charts" }, this.before.element, this.after.element),
      this.means,
      this.statistics.element,
      element("p", {}, "Gradient norms of the last step, by linear layer, on a logarithmic scale."),
      this.gradients.element,
      element("p", {}, "Predictions in eval mode for ten test digits."),
      this.predictions.element,
    );
    this.element = element(
      "details",
      { className: "bnb-inside" },
      element("summary", { textContent: title }),
      this.note,
      this.body,
    );
    this.element.addEventListener("toggle", () => this.look());
    trainer.watch((run, report) => this.take(run, report));
  }

  // Ask for what the network is like now.
  look() {
    if (!this.element.open) return;
    const runs = this.pick(this.trainer.state.runs).filter((run) =>
      ["running", "paused", "finished", "diverged"].includes(run.state),
    );
    this.note.textContent = runs.length
      ? ""
      : "Press Train. Then you can look inside the network, also while it trains.";
    this.note.hidden = runs.length > 0;
    this.body.hidden = !runs.length;
    if (!runs.length) return void (this.run = null);
    this.fill(
      this.runs.select,
      runs.map((run) => [run.id, `${run.number} (${run.name})`]),
    );
    this.run = runs.find((run) => run.id === this.runs.select.value) ?? runs.at(-1);
    this.fill(
      this.layers.select,
      Array.from({ length: this.run.values.depth }, (_, i) => [String(i), String(i + 1)]),
    );
    this.layer = Number(this.layers.select.value);
    send({ type: "inspect", run: this.run.id, layer: this.layer, digits: DIGITS });
  }

  // Replace the options of a menu if they have changed; the newest run is chosen, and any other choice stays.
  fill(select, options) {
    const key = JSON.stringify(options);
    if (select.dataset.options === key) return;
    const before = select.value;
    select.dataset.options = key;
    select.replaceChildren(...options.map(([value, textContent]) => element("option", { value, textContent })));
    const newest = select === this.runs.select ? options.at(-1)[0] : options[0][0];
    select.value = options.some(([value]) => value === before) && select !== this.runs.select ? before : newest;
  }

  take(run, report) {
    if (!run) this.look();
    else if (report.type === "inspection" && run === this.run) {
      this.found = report;
      this.show();
      this.again();
    } else if (report.type === "started") {
      this.shownState = null; // a new run is looked at, also if none was before
      this.again();
    } else if (report.type === "state" && run === this.run) this.again();
  }

  // Look again after a while, as long as the network changes.
  again() {
    clearTimeout(this.timer);
    if (!this.element.open || (this.run?.state !== "running" && this.shownState === this.run?.state)) return;
    this.shownState = this.run?.state;
    this.timer = setTimeout(() => this.look(), calm.matches ? CALM_PAUSE : PAUSE);
  }

  choose(channel) {
    this.channel = channel;
    this.channels.select.value = String(channel);
    this.show();
  }

  show() {
    const { channels, before, after, statistics, gradients, predictions } = this.found;
    this.fill(
      this.channels.select,
      Array.from({ length: channels }, (_, i) => [String(i), String(i)]),
    );
    this.channel = Math.min(this.channel, channels - 1);
    this.channels.select.value = String(this.channel);
    this.before.put(before, channels, this.channel);
    this.after.put(after, channels, this.channel);
    this.means.textContent = statistics ? MEANS : NO_STATISTICS;
    this.statistics.element.hidden = !statistics;
    if (statistics) this.statistics.put(statistics, this.run.color);
    this.gradients.put(gradients);
    this.predictions.put(predictions);
  }
}
