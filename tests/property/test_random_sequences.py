"""Random sequences of steps, losses, copies, files, checkpoints and processes: the numbers of an independent model."""

import copy
import io
import pickle
import secrets

import numpy as np
import pytest
import torch
from layer_models import BatchRenormModel, FullNormModel, Model, NoisyModel
from layer_models_over_batches import CrossIterationModel, MovingAverageModel, OnlineModel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import bnlib
from bnlib.distributed import run_in_processes
from bnlib.schedules import LinearRamp

SHAPES = [(6, 4), (1, 4), (5, 4, 3), (3, 4, 2, 2), (1, 4, 3, 1)]
LAYERS = {
    "BatchNorm": lambda **options: bnlib.BatchNorm(4, **options),
    "NoisyBatchNorm": lambda **options: bnlib.NoisyBatchNorm(4, seed=3, **options),
    "BatchRenorm": lambda **options: bnlib.BatchRenorm(
        4, momentum=0.3, r_max=LinearRamp(1.0, 3.0, 2, 6), d_max=LinearRamp(0.0, 2.0, 2, 6), **options
    ),
    "FullNorm running": lambda **options: bnlib.FullNorm(4, alpha=0.2, **options),
    "FullNorm batch": lambda **options: bnlib.FullNorm(4, alpha=0.2, oracle="batch", **options),
    "FullNorm constant": lambda **options: bnlib.FullNorm(4, alpha=0.2, oracle="constant", **options),
    "DomainBatchNorm": lambda **options: bnlib.DomainBatchNorm(4, 2, shared_affine=True, **options),
    "MovingAverageBatchNorm": lambda **options: bnlib.MovingAverageBatchNorm(
        4, window=2, momentum=0.3, r_max=1.5, **options
    ),
    "OnlineNorm": lambda **options: bnlib.OnlineNorm(4, 0.9, 0.95, **options),
    "CrossIterationBatchNorm": lambda **options: bnlib.CrossIterationBatchNorm(
        torch.nn.Linear(4, 4, **options), window=3, momentum=0.3
    ),
}
MODELS = {
    "BatchNorm": Model,
    "NoisyBatchNorm": NoisyModel,
    "BatchRenorm": BatchRenormModel,
    "DomainBatchNorm": Model,
    "MovingAverageBatchNorm": MovingAverageModel,
    "OnlineNorm": OnlineModel,
    "CrossIterationBatchNorm": CrossIterationModel,
}


def shapes_of(name):
    return SHAPES[:2] if name == "CrossIterationBatchNorm" else SHAPES  # it contains a linear layer


def parameter_names(layer):
    return ["weight", "bias", *(["layer.weight", "layer.bias"] if hasattr(layer, "layer") else [])]


def arrays(layer):
    """The tensors of a layer, or of the current domain, as arrays; FullNorm's mean as one number."""
    layer = layer.domains[layer.domain] if hasattr(layer, "domains") else layer
    state = {name: value.detach().double().numpy().copy() for name, value in layer.state_dict().items()}
    if "running_mean_rest" in state:
        state["running_mean"] = state["running_mean"] + state.pop("running_mean_rest")
    return state


def model_of(name, layer):
    model = MODELS.get(name, FullNormModel)(arrays(layer))
    if isinstance(model, FullNormModel):
        model.oracle = name.split()[1]
    if isinstance(model, NoisyModel):
        model.draw = lambda shape, step: [each.numpy() for each in layer.noise.draw(shape, step)]
    return model


class Twins:
    """A layer and its model, which do everything together, and are compared after each operation."""

    def __init__(self, name, rng, compiled=False):
        self.layer, self.rng, self.stored = LAYERS[name](dtype=torch.float64), rng, None
        with torch.no_grad():
            for value in self.layer.parameters():
                value.copy_(torch.from_numpy(rng.normal(size=value.shape)))
        self.models = []
        for domain in range(len(getattr(self.layer, "domains", [0]))):
            self.choose(domain)
            self.models.append(model_of(name, self.layer))
        self.compiled = torch.compile(self.layer, backend="aot_eager", fullgraph=True) if compiled else None
        self.shapes = [(6, 4)] if compiled else shapes_of(name)

    def choose(self, domain):
        self.domain = domain
        if hasattr(self.layer, "domains"):
            self.layer.domain = domain

    @property
    def model(self):
        return self.models[self.domain]

    def parameters(self):
        layer = self.layer.domains[0] if hasattr(self.layer, "domains") else self.layer
        return [layer.get_parameter(name) for name in parameter_names(layer)]

    def batch(self):
        shape = self.shapes[self.rng.integers(len(self.shapes))]
        return self.rng.normal(size=shape) * self.rng.uniform(0.5, 3) + self.rng.normal()

    def forward(self, training=True, call=None):
        x = self.batch()
        leaf = torch.from_numpy(x.copy())
        if x.ndim == 4 and self.rng.integers(2):
            leaf = leaf.contiguous(memory_format=torch.channels_last)
        self.layer.train(training)
        if call is None:
            call = self.layer if self.compiled is None else self.compiled
        y = call(leaf.requires_grad_())
        expected, context = self.model.forward(x, training)
        self.same(y.detach().numpy(), expected)
        return leaf, y, context

    def backward(self, leaf, y, context, model=None, again=False):
        g = self.rng.normal(size=y.shape)
        wanted = [value for value in (leaf, *self.parameters()) if value.requires_grad]
        found = torch.autograd.grad(y, wanted, torch.from_numpy(g), retain_graph=True)
        if again:
            (model or self.model).recompute(context[0])
        expected = (model or self.model).backward(context, g)
        kept = [each for each, value in zip(expected, (leaf, *self.parameters()), strict=True) if value.requires_grad]
        for ours, theirs in zip(found, kept, strict=True):
            self.same(ours.numpy(), theirs)

    def same(self, ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)

    def compare(self):
        for domain, model in enumerate(self.models):
            layer = self.layer.domains[domain] if hasattr(self.layer, "domains") else self.layer
            found = arrays(layer)
            assert set(found) == set(model.arrays)
            for name, value in found.items():
                np.testing.assert_allclose(value, model[name], rtol=1e-9, atol=1e-9, err_msg=name)


def step(twins):
    twins.backward(*twins.forward())


def evaluate(twins):
    twins.backward(*twins.forward(training=False))


def two_losses(twins):
    passed = twins.forward()
    for _ in range(twins.rng.integers(2, 4)):
        twins.backward(*passed)


def two_batches(twins):
    passes = [twins.forward() for _ in range(2)]
    for place in twins.rng.permutation(2):
        twins.backward(*passes[place])


def without_gradients(twins):
    with torch.no_grad():
        twins.forward()


def checkpointed(twins):
    use_reentrant = bool(twins.rng.integers(2))
    passed = twins.forward(call=lambda x: checkpoint(twins.layer, x, use_reentrant=use_reentrant))
    if use_reentrant:  # it gives the gradients to .grad only
        leaf, y, context = passed
        g = twins.rng.normal(size=y.shape)
        twins.layer.zero_grad()
        y.backward(torch.from_numpy(g))
        twins.model.recompute(context[0])
        expected = twins.model.backward(context, g)
        for value, wanted in zip((leaf, *twins.parameters()), expected, strict=True):
            if value.requires_grad:
                twins.same(value.grad.numpy(), wanted)
    else:
        twins.backward(*passed, again=True)


def with_given_tensors(twins):
    state = dict((*twins.layer.named_parameters(), *twins.layer.named_buffers()))
    given = {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in state.items()}
    before = [model.state() for model in twins.models]
    leaf, y, context = twins.forward(call=lambda x: torch.func.functional_call(twins.layer, given, (x,)))
    g = twins.rng.normal(size=y.shape)
    (found,) = torch.autograd.grad(y, leaf, torch.from_numpy(g))
    twins.same(found.numpy(), twins.model.backward(context, g)[0])
    for model, state in zip(twins.models, before, strict=True):
        model.load(state)  # the layer's own tensors have not changed


def copied(twins):
    way = twins.rng.integers(3)
    if way == 0:
        twins.layer = copy.deepcopy(twins.layer)
    elif way == 1:
        twins.layer = pickle.loads(pickle.dumps(twins.layer))
    else:
        file = io.BytesIO()
        torch.save(twins.layer.state_dict(), file)
        file.seek(0)
        twins.layer.load_state_dict(torch.load(file, weights_only=True), assign=bool(twins.rng.integers(2)))


def stored(twins):
    """Store the state, or go back to what was stored."""
    if twins.stored is None:
        twins.stored = copy.deepcopy(twins.layer.state_dict()), [model.state() for model in twins.models]
    else:
        state, models = twins.stored
        twins.layer.load_state_dict(state)
        for model, each in zip(twins.models, models, strict=True):
            model.load(each)
        twins.stored = None


def frozen(twins):
    parameters = twins.parameters()
    value = parameters[twins.rng.integers(len(parameters))]
    value.requires_grad_(not value.requires_grad)


def another_domain(twins):
    twins.choose(int(twins.rng.integers(len(twins.models))))


def moved_by_the_optimiser(twins):
    place = twins.rng.integers(len(twins.parameters()))
    name, value = parameter_names(twins.layer)[place], twins.parameters()[place]
    change = twins.rng.normal(size=value.shape) * 0.1
    with torch.no_grad():
        value.add_(torch.from_numpy(change))
    for model in twins.models:
        model.move(name, model[name] + change)


OPERATIONS = [step, evaluate, two_losses, two_batches, without_gradients, checkpointed, with_given_tensors, copied,
              stored, frozen, another_domain, moved_by_the_optimiser]  # fmt: skip


def run_sequences(name, count, operations, compiled=False):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    for number in range(count):
        rng, done = np.random.default_rng([seed, number]), []
        twins = Twins(name, rng, compiled)
        try:
            for _ in range(12):
                done.append(operations[rng.integers(len(operations))])
                done[-1](twins)
                twins.compare()
        except Exception:
            print(f"sequence {number}: {', '.join(each.__name__ for each in done)}")
            raise


@pytest.mark.parametrize("name", LAYERS)
def test_random_sequences_give_the_numbers_of_the_model(name):
    run_sequences(name, 25, OPERATIONS)


# torch sets off its own DeprecationWarnings when it compiles.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["BatchNorm", "BatchRenorm", "FullNorm running", "MovingAverageBatchNorm",
                                  "OnlineNorm", "CrossIterationBatchNorm"])  # fmt: skip
def test_random_sequences_of_a_compiled_layer_give_the_numbers_of_the_model(name):
    torch._dynamo.reset()
    run_sequences(name, 1, [step, evaluate, two_batches, stored, moved_by_the_optimiser], compiled=True)


def processes_batches(name, seed, steps, rank):
    rng, possible = np.random.default_rng([seed, rank]), shapes_of(name)
    shapes = np.random.default_rng(seed).integers(len(possible), size=steps)
    return [(rng.normal(size=possible[shape]) + rank, rng.normal(size=possible[shape])) for shape in shapes]


def trained_in_this_process(seed, steps):
    """The state of each layer after each step of two processes, and the last gradient of its weight."""
    torch.set_num_threads(1)
    results = {}
    for name in LAYERS:
        torch.manual_seed(0)  # of the linear layer that one of them contains
        layer = LAYERS[name](dtype=torch.float64)
        if hasattr(layer, "domains"):
            layer.domain = 1
        parallel = DistributedDataParallel(layer)
        states = []
        for x, g in processes_batches(name, seed, steps, torch.distributed.get_rank()):
            layer.zero_grad()
            parallel(torch.from_numpy(x).requires_grad_()).backward(torch.from_numpy(g))
            weight = layer.domains[0].weight if hasattr(layer, "domains") else layer.weight
            states.append((arrays(layer), weight.grad.numpy().copy()))
            with torch.no_grad():
                for value in layer.parameters():
                    value.sub_(value.grad, alpha=0.1)
        results[name] = states
    return results


def test_two_processes_give_the_numbers_of_two_models_with_the_mean_of_their_gradients():
    seed, steps = secrets.randbits(32), 6
    print(f"seed {seed}")
    found = run_in_processes(trained_in_this_process, 2, seed, steps)
    for name in LAYERS:
        torch.manual_seed(0)
        layer = LAYERS[name](dtype=torch.float64)
        if hasattr(layer, "domains"):
            layer.domain = 1
        models = [model_of(name, layer) for _ in range(2)]
        for number in range(steps):
            models[1].load(models[0].state())  # the processes start with equal parameters and the buffers of process 0
            gradients = []
            for rank, model in enumerate(models):
                x, g = processes_batches(name, seed, steps, rank)[number]
                gradients.append(model.backward(model.forward(x, True)[1], g)[1:])
            mean = [sum(each) / 2 for each in zip(*gradients, strict=True)]
            for rank, model in enumerate(models):
                state, of_weight = found[rank][name][number]
                np.testing.assert_allclose(of_weight, mean[0], rtol=1e-9, atol=1e-9, err_msg=f"{name}, step {number}")
                for key, value in state.items():
                    np.testing.assert_allclose(value, model[key], rtol=1e-9, atol=1e-9, err_msg=f"{name}: {key}")
                for key, gradient in zip(parameter_names(layer), mean, strict=True):
                    model.move(key, model[key] - 0.1 * gradient)
