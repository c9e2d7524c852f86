"""The callbacks for training libraries; with the libraries themselves where they are installed."""

import pickle
import sys

import pytest
import torch
from monitored_networks import perceptron
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import bnlib

BAD = 7


@pytest.mark.parametrize(
    ("name", "make"), [("lightning", bnlib.monitor.lightning), ("transformers", bnlib.monitor.transformers)]
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(name, make, monkeypatch):
    for each in ("lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, each, None)
    module = sys.modules[make.__module__]
    module._callback_class.cache_clear()
    monkeypatch.setattr(
        module.importlib.util if name == "lightning" else module, "find_spec", lambda each: None, raising=False
    )
    with pytest.raises(
        ModuleNotFoundError,
        match=rf"a callback of {name.title() if name == 'lightning' else name} needs "
        rf"{name}, .*pip install 'bnlib\[{name}\]'",
    ):
        make()


def batches(count=23):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(16, 6, generator=generator) for _ in range(count)]
    inputs[BAD - 1][0, 0] = torch.inf
    return [(x, torch.zeros(16, dtype=torch.long)) for x in inputs]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning(package, monkeypatch, tmp_path):
    library = pytest.importorskip(package)
    if package == "pytorch_lightning":
        monkeypatch.delitem(sys.modules, "lightning.pytorch", raising=False)

    class Module(library.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = perceptron()

        def training_step(self, batch, index):
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.network(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    logged = {}

    class Logger(library.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            logged.setdefault(step, {}).update(metrics)

    watch = bnlib.monitor.lightning(every=5, warn=False)
    assert isinstance(watch, library.Callback) and type(pickle.loads(pickle.dumps(watch))) is type(watch)
    trainer = library.Trainer(
        max_epochs=2, callbacks=[watch], logger=Logger(), accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(batches(), batch_size=None), DataLoader(batches()[10:], batch_size=None))
    assert watch.monitor.step == 46
    assert {each.layer for each in watch.monitor.findings} == {"network.1", "network.4"}
    assert all(each.evidence.startswith(f"Since step {BAD},") for each in watch.monitor.findings)
    assert logged[2]["batch_norm_updates/network.1"] == 1


@pytest.mark.filterwarnings("ignore")
def test_transformers(tmp_path):
    library = pytest.importorskip("transformers")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = perceptron()

        def forward(self, x, labels):
            logits = self.network(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    class Data(IterableDataset):
        """Samples in their order, which the Trainer does not shuffle."""

        def __iter__(self):
            return ({"x": x[k], "labels": y[k]} for x, y in batches() for k in range(16))

    seen = []
    watch = bnlib.monitor.transformers(every=5, to=lambda scalars, step: seen.append(step), warn=False)
    assert isinstance(watch, library.TrainerCallback)
    settings = library.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=16, max_steps=46, report_to=[], use_cpu=True, learning_rate=0.0,
        max_grad_norm=0.0, disable_tqdm=True, save_strategy="no", eval_strategy="steps", eval_steps=20,
    )  # fmt: skip
    trainer = library.Trainer(Model(), settings, train_dataset=Data(), eval_dataset=Data(), callbacks=[watch])
    trainer.train()
    assert watch.monitor.step == 46
    assert {each.layer for each in watch.monitor.findings} == {"network.1", "network.4"}
    assert all(each.evidence.startswith(f"Since step {BAD},") for each in watch.monitor.findings)
    assert seen[0] == 2 and any("batch_norm_distance/network.1" in each for each in trainer.state.log_history)


def test_tensorboard(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = perceptron()
    with tensorboard.SummaryWriter(str(tmp_path)) as writer, bnlib.Monitor(model, every=5, to=writer, warn=False):
        for x, y in batches():
            F.cross_entropy(model(x), y).backward()
    found = events.EventAccumulator(str(tmp_path)).Reload()
    assert [each.step for each in found.Scalars("batch_norm_gamma/1")] == [2, 7, 12, 17, 22]
