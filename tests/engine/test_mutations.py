"""The comparison with bnlib notices every small change of the engine's formulas."""

from __future__ import annotations

from itertools import islice

import cases
import pytest
import reference
import training_engine
from comparison import distance
from engines import in_chromium

pytestmark = pytest.mark.mutation

SKIP = {"hidden": [6] * 4, "skipConnections": True, "gamma": 0.5}
NOTICED_BY = [
    cases.case(
        norm,
        **{"network": {"hidden": [6, 5]}, "steps": 8, "checkpoints": [8], "batchSize": 12, "batches": batches}
        | changes,
    )
    for norm, batches, changes in [
        (cases.BATCH_NORM, {"construction": "single_label"}, {"evaluations": ["eval", "precise", "train"]}),
        (cases.FULL_NORM, {"construction": "max_labels", "labels": 3}, {"momentum": 0.5}),
        (cases.RENORM | cases.RAMPS, {"construction": "fixed", "shuffleBatches": True}, {"freezeStatistics": 6}),
        *((norm, {"construction": "shuffled"}, {}) for norm in cases.NORMS),
        ({"kind": "ghost_batch_norm", "virtualBatchSize": 5}, {"construction": "shuffled"}, {"batchSize": 14}),
        ({"kind": "domain_batch_norm"}, {"construction": "shuffled"}, {"data": {"name": "two_domains", "share": 0.75}}),
        (cases.BATCH_NORM, {"construction": "shuffled"}, {"network": {"hidden": [7], "initialisation": "he"}}),
        (cases.BATCH_NORM, {"construction": "shuffled"}, {"network": SKIP}),
        ({"kind": "weight_norm"}, {"construction": "shuffled"}, {"microBatchSize": 6}),
        (cases.FULL_NORM, {"construction": "shuffled"}, {"network": {"placement": "after"}}),
        (cases.BATCH_NORM, {"construction": "shuffled"}, {"evaluations": ["train"], "evaluationBatchSize": 800}),
        (cases.BATCH_NORM | {"momentum": None}, {"construction": "shuffled"}, {"microBatchSize": 4}),
        (cases.FULL_NORM | {"eps": 0.3}, {"construction": "shuffled"}, {}),
        (cases.BATCH_NORM, {"construction": "fixed"}, {"data": cases.LABELS[1], "evaluations": ["train"]}),
    ]
]
MUTATIONS = [
    ("mersenne_twister", "1812433253", "1812433255"),
    ("datasets", "generator.integer(10)", "generator.integer(9)"),
    ("datasets", 'data.labels === "random"', "false"),
    ("datasets", "reshuffled: 1000", "reshuffled: 0"),
    ("mersenne_twister", "y >>> 11", "y >>> 12"),
    ("mersenne_twister", "0x7fffffff", "0x7ffffffe"),
    ("random_numbers", "0xffffff)", "0x7fffff)"),
    ("random_numbers", "this.integer(count - i)", "this.integer(count - i - 1)"),
    ("random_numbers", "-weight / Math", "weight * Math"),
    ("random_numbers", "values[i + half]));", "values[i]));"),
    ("random_numbers", "values.length - BLOCK;", "values.length - 2 * BLOCK;"),
    ("float32_functions", "-2.1219444e-4", "-2.1219e-4"),
    ("float32_functions", "exponent--", ""),
    ("float32_functions", "octant & 2 ?", "octant & 4 ?"),
    ("float32_functions", "-1.9515295891e-4", "-1.951e-4"),
    ("initialisation", "Math.sqrt(3) * std", "std"),
    ("initialisation", "1 / Math.sqrt(inputs))", "1 / inputs)"),
    ("samplers", "(i) => own[i]", "(i) => own[own.length - 1 - i]"),
    ("samplers", "this.unused[i] = 0", "this.unused[i] = 1"),
    ("samplers", "this.counts[this.labels[i]]--", "this.counts[this.labels[i]] -= 2"),
    ("matrix_product", "c11 += a1 * b1", "c11 += a1 * b2"),
    ("matrix_product", "sum += a[p] * b[q]", "sum -= a[p] * b[q]"),
    ("linear", "biasGradient[j] += g[i]", "biasGradient[j] += 1.001 * g[i]"),
    ("linear", "y.set(this.bias, row * this.outputs)", "y.fill(0, row * this.outputs, (row + 1) * this.outputs)"),
    ("relu", "Math.max(x[i], 0)", "Math.max(x[i], 0.01 * x[i])"),
    ("relu", "if (x[i] <= 0) g[i] = 0", "if (x[i] <= 0) g[i] *= 0.5"),
    ("cross_entropy", "weight / rows", "weight"),
    ("cross_entropy", "Math.log(sum) + largest", "Math.log(sum)"),
    ("cross_entropy", "if (best !== labels[row]) errors++", "if (best === labels[row]) errors++"),
    ("channel_norm", "variance[c] /= rows", "variance[c] /= rows - 1"),
    ("channel_norm", "this.factor[c] * projection[c]", "projection[c]"),
    ("channel_norm", "+ this.shift[c] * total[c]", ""),
    ("channel_norm", "this.betaGradient[c] += total[c]", "this.betaGradient[c] += 2 * total[c]"),
    ("channel_norm", "this.total[c] /= rows", "this.total[c] = 0"),
    ("channel_norm", "this.projection[c] /= rows", "this.projection[c] = 0"),
    ("channel_norm", "this.gamma[c] * this.shift[c] +", ""),
    ("channel_norm", "if (!this.usedBatch) {", "if (false) {"),
    ("batch_norm", "this.variance[c] + this.eps", "this.variance[c]"),
    ("batch_norm", "(this.variance[c] * rows) / (rows - 1)", "this.variance[c]"),
    ("batch_norm", "1 / (this.batches + 1)", "1 / (this.batches + 2)"),
    ("full_norm", "difference * (difference - step)", "difference * difference"),
    ("full_norm", "mean[c] += step", "mean[c] += difference"),
    ("full_norm", "Math.max(this.running.variance[c], this.eps)", "this.running.variance[c] + this.eps"),
    ("full_norm", "this.running.variance[c] > this.eps ? 1 : 0", "1"),
    ("full_norm", "sums[c] = running[c];", ""),
    ("full_norm", "between(running[c], sums[c], this.alpha)", "between(sums[c], running[c], this.alpha)"),
    ("full_norm", "literal: rows * channels", "literal: rows"),
    ("full_norm", "constant: Infinity", "constant: rows"),
    ("full_norm", "batch: rows }", "batch: rows - 1 }"),
    ("full_norm", "/ (rows - 1)) * scale[c]", "/ rows) * scale[c]"),
    ("full_norm", "total[c] - g[i] + along", "total[c] + along"),
    ("full_norm", "(step + start) / scale", "step / scale"),
    ("batch_renorm", "1 / rMax, rMax", "0, Infinity"),
    ("batch_renorm", "-dMax, dMax", "-Infinity, Infinity"),
    ("batch_renorm", "** 2 - this.eps, 0)", "** 2, 0)"),
    ("batch_renorm", "(step - begin)", "step"),
    ("group_norm", "variance / size", "variance / (size - 1)"),
    ("domain_batch_norm", "this.domains[this.domain]", "this.domains[0]"),
    ("domain_batch_norm", "norm.restore(snapshot[domain])", "norm"),
    ("ghost_batch_norm", "rows % count", "0"),
    ("ghost_batch_norm", "Math.ceil(rows", "Math.floor(rows"),
    ("ghost_batch_norm", "this.gain.set(gain);", ""),
    ("ghost_batch_norm", "this.scale.set(scale);", ""),
    ("rms_norm", "- x[i] * gain * projection", ""),
    ("rms_norm", "g[i] *= gamma[c];", ""),
    ("rms_norm", "2 ** -52", "2 ** -23"),
    ("rms_norm", "slice(0, 1)", "slice(0, 2)"),
    ("dynamic_tanh", "(1 - squashed * squashed)", "(1 - squashed)"),
    ("dynamic_tanh", "along += inside * x[i]", "along += inside"),
    ("dynamic_tanh", "g[i] = inside * alpha", "g[i] = inside"),
    ("dynamic_tanh", "Math.fround(settings.alpha)", "1"),
    ("evonorm", "share * (1 - share)", "share"),
    ("evonorm", "x[i] * x[i] * slope", "x[i] * slope"),
    ("evonorm", "g[i] -= (x[i] - mean) * projection", "g[i] -= x[i] * projection"),
    ("evonorm", "(gain * gain) / size", "gain / size"),
    ("filter_response_norm", "Math.fround(1e-4)", "1e-3"),
    ("filter_response_norm", "g[i] *= eps;", ""),
    ("filter_response_norm", "(1 - share) * g[i]", "share * g[i]"),
    ("filter_response_norm", "(g[i] * x[i]) / 2", "g[i] * x[i]"),
    ("filter_response_norm", "Math.sign(learned)", "0"),
    ("weight_norm", "(trained[i] * along) / length", "trained[i] * along"),
    ("weight_norm", "this.lengthGradient[j] += along", "this.lengthGradient[j] = along"),
    ("weight_norm", "Math.fround(Math.sqrt(this.dot(j, this.trained)))", "Math.sqrt(this.dot(j, this.trained))"),
    ("weight_standardisation", "variance / inputs + EPS", "variance / (inputs - 1) + EPS"),
    ("weight_standardisation", "total + weight[i] * projection", "total"),
    ("cosine", "weight[i] * along", "0"),
    ("cosine", "inputGradient[i] -= x[i] * along", "inputGradient[i] -= along"),
    ("cosine", "along /= length * length", "along /= length"),
    ("cosine", "slice(0, 1)", "slice(0, 2)"),
    ("reparametrised_linear", "this.weightGradient.fill(0);", ""),
    ("hidden_layer", "!(this.normFirst && this.norm?.includesActivation)", "true"),
    ("hidden_layer", "if (activated && !normFirst) reluBackward", "if (activated && normFirst) reluBackward"),
    ("residual_blocks", "add(g, branch, rows * this.outputs)", "g.set(branch)"),
    ("residual_blocks", "i % 2 === 0", "true"),
    ("residual_blocks", "i % 2 === 1", "i % 2 === 0"),
    ("group_norm", "g[i] *= gamma[c]", ""),
    ("group_norm", "total + (x[i] - mean) * gain * projection", "total"),
    ("group_norm", "channels / groups >= 4", "channels / groups >= 2"),
    ("sgd", "momentum * velocity[i] + gradient[i]", "momentum * velocity[i] + (1 - momentum) * gradient[i]"),
    ("evaluation", "norm.momentum = 1;", ""),
    ("evaluation", "norm.restore(before[i])", "norm"),
    ("training", "part.length > 1 ? place : 0", "0"),
    ("evaluation", "2 * test.y.length", "3 * test.y.length"),
    ("evaluation", "network.useDomain(test.domain)", "network.useDomain(0)"),
    ("training", "settings.evaluationBatchSize ?? settings.batchSize", "settings.batchSize"),
    ("training", "this.steps < freezeStatistics", "this.steps <= freezeStatistics"),
    ("training", "1 / this.parts.length", "1"),
    ("training", "this.lossSum / this.counted", "this.lossSum"),
]  # fmt: skip


@pytest.fixture(scope="module")
def results() -> list:
    """What bnlib computes for each of the runs."""
    return [reference.trained(settings) for settings in NOTICED_BY]


def changed(file: str, old: str, new: str) -> str:
    """The engine with one change."""
    texts = training_engine.modules()
    assert texts[file].count(old) == 1, (file, old, texts[file].count(old))
    return training_engine.joined(texts | {file: texts[file].replace(old, new)})


def test_the_engine_as_it_is_passes(engine, results):
    distances = map(distance, engine(NOTICED_BY), results)
    assert max(distances) <= 1e-10


def test_each_change_is_noticed(page, results):
    assert [mutation for mutation in MUTATIONS if not noticed(in_chromium(page, changed(*mutation)), results)] == []


def noticed(engine, results: list) -> bool:
    """Whether a run is far from bnlib's; most changes are noticed by the first ones."""
    return any(
        not far <= 1e-9
        for some in batched(zip(NOTICED_BY, results, strict=True), 3)
        for far in map(distance, engine([settings for settings, _ in some]), [result for _, result in some])
    )


def batched(items, count: int):
    items = iter(items)
    while some := list(islice(items, count)):
        yield some


def test_the_table_has_changes_of_every_file_with_a_formula():
    without = {"arrays", "batches", "begin", "chain", "inspection", "largest", "network", "norms", "protocol",
               "sample_norm", "settings", "small_problem", "small_settings", "wasm_kernels", "worker"}  # fmt: skip
    small = {"composition", "discriminator", "two_weights"}  # in test_small_problems.py and test_discriminator.py
    assert {file for file, *_ in MUTATIONS} == set(training_engine.modules()) - without - small
