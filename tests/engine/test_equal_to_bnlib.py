"""Networks that train in the page are those that bnlib trains in PyTorch."""

from __future__ import annotations

import itertools

import cases
import pytest
import reference
import torch
import training_engine
from comparison import distance, numbers
from engines import in_chromium, source

from bnlib import samplers, training


def differences(engine, settings: list) -> dict[str, float]:
    """The distance of each run from bnlib's, by its settings."""
    found = engine(settings)
    return {str(each): distance(ours, reference.trained(each)) for each, ours in zip(settings, found, strict=True)}


def too_far(distances: dict[str, float], limit: float) -> dict[str, float]:
    # Written so that nan is too far.
    return {settings: far for settings, far in distances.items() if not far <= limit}


def test_float64_for_each_norm_construction_and_batch_size(engine):
    assert too_far(differences(engine, cases.GRID), 1e-10) == {}


def test_float64_for_each_norm_and_construction_at_full_size(engine):
    assert too_far(differences(engine, cases.FULL_SIZE), 1e-10) == {}


def test_float64_for_every_other_setting(engine):
    assert too_far(differences(engine, cases.OTHER), 1e-10) == {}


# On other processors PyTorch has another logarithm, sine and cosine, which differ in the last bit of a float32.
SAME_NORMAL_NUMBERS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def test_runs_that_draw_normal_numbers(engine):
    limit = 1e-10 if SAME_NORMAL_NUMBERS else 1e-5
    assert too_far(differences(engine, cases.NORMAL_NUMBERS), limit) == {}


@pytest.mark.skipif(not SAME_NORMAL_NUMBERS, reason="this processor has other normal numbers")
def test_normal_numbers_are_equal_bit_for_bit(page):
    seeds, counts = [*range(9), 2**32 + 5], [5, 16, 40, 10_007]
    page.goto("about:blank")
    page.add_script_tag(content=source())
    ours = page.evaluate(
        """([seeds, counts]) => seeds.map((seed) => {
        const { random_numbers: { RandomNumbers } } = trainingEngine();
        const generator = new RandomNumbers(seed);
        return counts.map((count) => {
          const values = new Float32Array(count);
          generator.normal(values, 1.7);
          return Array.from(values);
        });
        })""",
        [seeds, counts],
    )
    for seed, found in zip(seeds, ours, strict=True):
        generator = torch.Generator().manual_seed(seed)
        for count, numbers_of_page in zip(counts, found, strict=True):
            assert torch.empty(count).normal_(0, 1.7, generator=generator).tolist() == numbers_of_page, (seed, count)


def test_float32_over_20_steps(engine):
    assert too_far(differences(engine, [*cases.FLOAT32, *cases.RESTS]), 1e-5) == {}


def test_float32_without_webassembly(page):
    texts = training_engine.modules()
    assert texts["wasm_kernels"].count("new WebAssembly.Module(assembled())") == 1
    texts["wasm_kernels"] = texts["wasm_kernels"].replace("new WebAssembly.Module(assembled())", "null")
    plain = in_chromium(page, training_engine.joined(texts))
    assert too_far(differences(plain, [*cases.FLOAT32[::4], *cases.RESTS]), 1e-5) == {}


def test_firefox_computes_the_same(firefox_engine):
    few = [each for each in cases.GRID if each["batchSize"] in (1, 32)][::4]
    assert {each["network"]["norm"]["kind"] for each in few} == {each["kind"] for each in cases.NORMS}
    assert too_far(differences(firefox_engine, [*few, *cases.OTHER[::3]]), 1e-10) == {}
    single = [*cases.FLOAT32[::4], *cases.RESTS[::2], *cases.NORMAL_NUMBERS[:3]]
    assert too_far(differences(firefox_engine, single), 1e-5) == {}


def test_node_computes_the_same(node_engine):
    assert too_far(differences(node_engine, cases.OTHER[::3]), 1e-10) == {}


def test_batch_size_2_is_left_out_because_there_pytorch_differs_from_itself():
    def final(batch_size: int, order: slice) -> torch.Tensor:
        settings = cases.case({"kind": "batch_norm"}, batchSize=batch_size)
        data, model = *reference.data(settings), reference.network(settings)
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for index in itertools.islice(samplers.shuffled(data.train_y, batch_size, 0), 60):
            batch = index.tolist()[order]  # the order of the samples makes no difference in mathematics
            loss = torch.nn.functional.cross_entropy(model(data.train_x[batch]), data.train_y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return torch.cat([each.detach().flatten() for each in model.parameters()])

    def sensitivity(batch_size: int) -> float:
        return (final(batch_size, slice(None)) - final(batch_size, slice(None, None, -1))).abs().max().item()

    # A batch of two is normalised to almost exactly -1 and 1: the gradient is a small difference of large numbers.
    assert sensitivity(2) > 1e-3
    assert sensitivity(8) < 1e-10


@pytest.mark.parametrize("norm", ["batch_norm", "full_norm"])
def test_checkpoints_are_the_history_of_training_iterate(engine, norm):
    settings = cases.case({"kind": norm}, steps=None, epochs=2, checkpoints=7, batchSize=64)
    (ours,) = engine([{key: value for key, value in settings.items() if value is not None}])
    (data,) = reference.data(settings)
    *_, (_, _, history) = training.iterate(
        reference.network(settings), data, batch_size=64, lr=0.03, epochs=2, checkpoints=7, seed=3
    )
    scores = [each["test"]["eval"][0] for each in ours["checkpoints"]]
    columns = {
        "epoch": [each["epoch"] for each in ours["checkpoints"]],
        "train_loss": [each["trainLoss"] for each in ours["checkpoints"]],
        "train_error": [each["trainError"] for each in ours["checkpoints"]],
        "test_loss": [score["loss"] for score in scores],
        "test_error": [score["error"] for score in scores],
    }
    for name, column in columns.items():
        assert column == pytest.approx(getattr(history, name), abs=1e-7), name  # bnlib's shares of errors are float32


def test_a_run_that_diverges_ends_at_the_next_checkpoint(engine):
    changes = {"learningRate": 1e30, "precision": "float32", "epochs": 2, "checkpoints": 8, "batchSize": 64}
    settings = cases.case({"kind": "none"}, **changes, steps=None)
    (ours,) = engine([{key: value for key, value in settings.items() if value is not None}])
    (data,) = reference.data(settings)
    *_, (_, _, history) = training.iterate(
        reference.network(settings),
        data,
        batch_size=64,
        lr=1e30,
        epochs=2,
        checkpoints=8,
        seed=3,
        record_step_loss=True,
    )
    assert history.diverged
    assert [each["epoch"] for each in ours["checkpoints"]] == history.epoch
    finite = torch.tensor(history.step_loss).isfinite()
    assert ours["divergedAt"] == finite.long().argmin().item() + 1


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"norm": {"kind": "weight_norm"}},
        {"hidden": [32] * 4, "skipConnections": True, "norm": {"kind": "batch_norm"}},
        {"initialisation": "he"},
    ],
    ids=["usual", "weight norm", "skip connections", "he"],
)
def test_initial_weights_are_equal_bit_for_bit(engine, network):
    if "initialisation" in network and not SAME_NORMAL_NUMBERS:
        pytest.skip("this processor has other normal numbers")
    settings = [
        {"batchSize": 8, "learningRate": 0.1, "steps": 1, "seed": seed, "network": {"norm": {"kind": "none"}} | network}
        for seed in [*range(9), 2**32 + 5]
    ]
    for each, ours in zip(settings, engine(settings), strict=True):
        assert list(numbers(ours["initial"])) == list(numbers(reference.parameters(reference.network(each))))


def test_batches_are_equal_index_for_index(engine):
    constructions = [
        *cases.BATCHES,
        {"construction": "fixed", "shuffleSamples": False},
        *({"construction": "max_labels", "labels": labels} for labels in (1, 2, 5, 9, 10)),
    ]
    # Some epochs each, because near the end of an epoch few samples are left.
    settings = [
        {"batchSize": size, "learningRate": 0.1, "steps": 40, "checkpoints": [40], "seed": seed, "batches": each,
         "network": {"hidden": []}}
        for each, size, seed in itertools.product(constructions, (100, 128), (0, 7))
    ]  # fmt: skip
    (data,) = reference.data({})
    for each, ours in zip(settings, engine(settings), strict=True):
        stream = reference.sampler(each)(data.train_y, each["batchSize"], each["seed"])
        theirs = [next(stream).tolist() for _ in range(40)]
        assert [batch for ((batch,),) in ours["batches"]] == theirs, each
