"""Time a training step in the page against one in PyTorch with one thread, and the first point of a curve."""

import shutil
import statistics
import sys
import time
from pathlib import Path

import torch
from playwright.sync_api import Page, sync_playwright
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, models, samplers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "_ext"))
import training_engine  # noqa: E402

STEPS = {8: 400, 32: 200, 128: 60}
ROUNDS = 7
PREPARE = """globalThis.runs = {};
globalThis.prepare = (digits, batchSize) => {
  const { settings: { complete }, datasets: { dataset }, training: { Training } } = trainingEngine();
  const network = { norm: { kind: "batch_norm" } };
  const settings = complete({ batchSize, learningRate: 0.1, steps: 1e6, checkpoints: [1e6], network });
  globalThis.runs[batchSize] = new Training(settings, dataset(settings.data, digits, 0));
};"""
TIME = """([batchSize, steps]) => {
  const began = performance.now();
  for (let i = 0; i < steps; i++) globalThis.runs[batchSize].step();
  return (performance.now() - began) / steps;
}"""
FIRST_POINT = """() => new Promise((resolve) => {
  const began = performance.now();
  const worker = startTrainingWorker();
  const settings = { batchSize: 32, learningRate: 0.1, network: { norm: { kind: "batch_norm" } } };
  worker.onmessage = ({ data }) => {
    if (data.type === "ready") worker.postMessage({ type: "start", run: "a", settings });
    if (data.type === "progress") resolve(performance.now() - began);
  };
})"""


class InTorch:
    """Train the same network with the same batches."""

    def __init__(self, batch_size: int) -> None:
        self.data, self.model = datasets.load("digits"), models.mlp((64, 100, 100, 10), BatchNorm)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.batches = samplers.shuffled(self.data.train_y, batch_size, 0)

    def milliseconds(self, steps: int) -> float:
        """Return the time of a step."""
        began = time.perf_counter()
        for _ in range(steps):
            index = next(self.batches)
            loss = F.cross_entropy(self.model(self.data.train_x[index]), self.data.train_y[index])
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return 1000 * (time.perf_counter() - began) / steps


def compare(page: Page) -> None:
    """Print the times of both, taken in turns, and the median of their ratios."""
    page.add_script_tag(content=training_engine.joined(training_engine.modules()) + PREPARE)
    for batch_size, steps in STEPS.items():
        page.evaluate("([digits, size]) => prepare(digits, size)", [training_engine.digits(), batch_size])
        in_torch, pairs = InTorch(batch_size), []
        for _ in range(ROUNDS + 1):
            pairs.append((page.evaluate(TIME, [batch_size, steps]), in_torch.milliseconds(steps)))
        ours, theirs = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
        ratio = statistics.median(a / b for a, b in pairs[1:])
        print(f"batch size {batch_size:3}: page {ours:.2f} ms, PyTorch {theirs:.2f} ms per step, ratio {ratio:.2f}")


def main() -> None:
    """Print all times."""
    torch.set_num_threads(1)
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        compare(page)
        page.add_script_tag(content=training_engine.script())
        first = [page.evaluate(FIRST_POINT) for _ in range(ROUNDS)]
        print(f"first point after {statistics.median(first):.0f} ms (from {min(first):.0f} to {max(first):.0f})")
        browser.close()


if __name__ == "__main__":
    main()
