"""Algorithm 2 on problems whose answer is known, and against training with FullNorm step by step."""

import itertools

import pytest
import torch
from torch import nn

import bnlib
from bnlib import mcsgd, schedules
from bnlib.mcsgd import Composition, Stage

SAMPLES = torch.tensor([[1.0, 2.0, 3.0], [3.0, -1.0, 1.0], [2.0, 0.5, -2.0], [-1.0, 1.5, 2.0]], dtype=torch.float64)


def toy():
    r"""$f(w) = E\,\frac12(c\,E[a w] - t)^2$ over samples (a, c, t); the least is at $E[ct] / (E[a] E[c^2])$."""
    stage = Stage(
        apply=lambda params, z, y: torch.cat((z[:, 1:2] * y, z[:, 2:]), 1),
        statistic=lambda params, z: z[:, :1] * params["w"],
        start=torch.zeros(1, dtype=torch.float64),
    )
    return Composition([stage], lambda params, z, target: (z[:, 0] - z[:, 1]).square() / 2)


def drawn(size, seed=0, data=SAMPLES):
    generator = torch.Generator().manual_seed(seed)
    while True:
        index = torch.randint(len(data), (size,), generator=generator)
        yield data[index], torch.zeros(size)


A, C, T = SAMPLES.T
OPTIMUM = ((C * T).mean() / (A.mean() * C.square().mean())).item()
BIASED = ((A * C * T).mean() / (A.mean() * (A * C.square()).mean())).item()
START = {"w": torch.ones((), dtype=torch.float64)}


def settle(oracle, steps=6000, **options):
    """The mean of the last half of the parameters."""
    lr = schedules.PowerSchedule(scale=50, power=0.8)
    run = mcsgd.minimize(
        toy(),
        START,
        drawn(1),
        lambda k: 0.05 * lr(k),
        schedules.PowerSchedule(scale=5, power=0.4),
        oracle=oracle,
        **options,
    )
    values = [state.params["w"] for state in itertools.islice(run, steps)]
    return torch.stack(values[steps // 2 :]).mean().item()


def test_the_value_is_the_objective_and_its_gradient_exact():
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    value = toy().value({"w": w}, (SAMPLES, torch.zeros(4)))
    expected = (C * A.mean() * w - T).square().mean() / 2
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, w) for each in (value, expected)))


@pytest.mark.parametrize("oracle", ["independent", "running"])
def test_it_finds_the_known_optimum_at_batch_size_one(oracle):
    assert settle(oracle) == pytest.approx(OPTIMUM, abs=0.04)


def test_the_oracle_of_one_sample_finds_another_point():
    assert abs(BIASED - OPTIMUM) > 0.2
    assert settle("same") == pytest.approx(BIASED, abs=0.06)


@pytest.mark.parametrize("estimator", ["corrected", "momentum"])
def test_other_estimators_find_it_too(estimator):
    assert settle("independent", estimator=estimator) == pytest.approx(OPTIMUM, abs=0.06)


@pytest.mark.parametrize("oracle", ["independent", "running", "same"])
def test_the_mean_of_the_gradient_at_exact_estimates(oracle):
    """Without bias, but for the oracle that takes one sample for both expectations."""
    composition = two_stages()
    params = {"w": torch.tensor(0.8, dtype=torch.float64), "u": torch.tensor(-0.4, dtype=torch.float64)}
    w = {name: value.clone().requires_grad_() for name, value in params.items()}
    exact = torch.autograd.grad(composition.value(w, (SAMPLES, torch.zeros(4))), list(w.values()))
    estimates = composition.statistics(params, SAMPLES)
    adjoints = [torch.zeros_like(each) for each in estimates]
    singles = [(row[None], torch.zeros(1)) for row in SAMPLES]
    if oracle == "running":
        for _ in range(3):  # those of the lower stage depend on those above
            state = mcsgd.State(0, params, estimates, adjoints)
            rows = [mcsgd._gradient(composition, state, estimates, s, iter([]), oracle, 1.0)[1] for s in singles]
            adjoints = [torch.stack(each).mean(0) for each in zip(*rows, strict=True)]
    state, total, count = mcsgd.State(0, params, estimates, adjoints), torch.zeros(2, dtype=torch.float64), 0
    extra = itertools.product(singles, repeat=2) if oracle == "independent" else [()]
    for more in extra:
        for single in singles:
            found, _ = mcsgd._gradient(composition, state, estimates, single, iter(more), oracle, 0.5)
            total, count = total + torch.stack(list(found.values())), count + 1
    unbiased = torch.allclose(total / count, torch.stack(exact), atol=1e-10)
    assert unbiased == (oracle != "same")


def two_stages():
    first = Stage(
        lambda params, z, y: z * torch.tanh(y) + params["u"],
        lambda params, z: (z * params["w"]).square().sum(1, keepdim=True),
        torch.zeros(1, dtype=torch.float64),
    )
    second = Stage(
        lambda params, z, y: z - y * z[:, :1],
        lambda params, z: torch.sin(z[:, 1:2] * params["u"]) + z[:, :1],
        torch.zeros(1, dtype=torch.float64),
    )
    return Composition([first, second], lambda params, z, target: z.square().sum(1))


def test_the_error_of_lemma_1_falls_with_alpha_and_lr():
    lr = schedules.PowerSchedule(scale=50, power=0.8)
    run = mcsgd.minimize(
        toy(), START, drawn(1), lambda k: 0.05 * lr(k), schedules.lian_corollary_3_alpha, oracle="running"
    )
    errors = [state.errors(toy(), SAMPLES)[0] for state in itertools.islice(run, 2500)]
    early, late = (torch.tensor(errors[part]).mean() for part in (slice(10, 60), slice(2000, 2500)))
    assert late < early / 3


def test_a_risk_that_is_no_mean():
    """The entropic risk log E exp(loss): the sample matters inside the statistic only."""

    def losses(params, z):
        return (z[:, :1] - params["w"]).square() / 2

    stage = Stage(
        lambda params, z, y: y.log().expand(len(z)), lambda params, z: losses(params, z).exp(), torch.ones(1).double()
    )
    risk = Composition([stage], lambda params, z, target: z)
    data = torch.tensor([[0.0], [0.2], [1.5]], dtype=torch.float64)
    run = mcsgd.minimize(risk, START, drawn(4, data=data), 0.05, 0.05, oracle="independent")
    values = [state.params["w"] for state in itertools.islice(run, 2500)]
    grid = torch.linspace(0, 1.5, 1501, dtype=torch.float64)
    best = grid[torch.stack([risk.value({"w": w}, (data, torch.zeros(3))) for w in grid]).argmin()]
    assert torch.stack(values[1000:]).mean().item() == pytest.approx(best.item(), abs=0.03)
    assert abs(best.item() - data.mean().item()) > 0.05


EPS = 1e-5


def norm_stage(channels, before, weight, bias):
    """FullNorm as a stage: ``before`` gives its input; the statistics are means and mean squares."""

    def split(y):
        mean, square = y.chunk(2)
        return mean, square - mean.square()

    def apply(params, z, y):
        mean, variance = split(y)
        return params[weight] * (before(params, z) - mean) / variance.clamp(min=EPS).sqrt() + params[bias]

    def statistic(params, z):
        z = before(params, z)
        return torch.cat((z, z.square()), 1)

    def inward(params, y, adjoint):
        """Into the sums of g and of g x-hat, which do not depend on mean and variance."""
        (mean, variance), (of_mean, of_square) = split(y), adjoint.chunk(2)
        scale = params[weight] / variance.sqrt()
        projection = -2 * of_square * variance / params[weight]
        return torch.cat((-(of_mean + 2 * mean * of_square) / scale, projection))

    def outward(params, y, kept):
        (mean, variance), (total, projection) = split(y), kept.chunk(2)
        scale = params[weight] / variance.sqrt()
        of_square = -projection * params[weight] / (2 * variance)
        return torch.cat((-total * scale - 2 * mean * of_square, of_square))

    start = torch.cat((torch.zeros(channels), torch.ones(channels))).double()
    return Stage(apply, statistic, start, (inward, outward))


@pytest.mark.parametrize(("oracle", "layers"), [("same", "batch"), ("running", "running"), ("constant", "constant")])
def test_on_a_network_it_is_training_with_full_norm_step_by_step(oracle, layers):
    torch.manual_seed(0)
    alpha, lr = schedules.lian_figure_4_alpha, 0.1
    network = nn.Sequential(
        nn.Linear(3, 5), bnlib.FullNorm(5, alpha=alpha, oracle=layers), nn.Tanh(),
        nn.Linear(5, 4), bnlib.FullNorm(4, alpha=alpha, oracle=layers), nn.Tanh(), nn.Linear(4, 2),
    ).double()  # fmt: skip
    params = {name: value.detach().clone() for name, value in network.named_parameters()}
    stages = [
        norm_stage(5, lambda p, z: z @ p["0.weight"].T + p["0.bias"], "1.weight", "1.bias"),
        norm_stage(4, lambda p, z: torch.tanh(z) @ p["3.weight"].T + p["3.bias"], "4.weight", "4.bias"),
    ]
    composition = Composition(
        stages, lambda p, z, y: (torch.tanh(z) @ p["6.weight"].T + p["6.bias"] - y).square().sum(1)
    )
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(8, 3, generator=generator).double(), torch.randn(8, 2, generator=generator).double())
        for _ in range(25)
    ]
    states = mcsgd.minimize(composition, params, iter(batches), lr, alpha, oracle=oracle, order="layerwise")
    optimiser = torch.optim.SGD(network.parameters(), lr=lr)
    for (x, y), state in zip(batches, states, strict=True):
        loss = (network(x) - y).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for name, value in network.named_parameters():
            torch.testing.assert_close(state.params[name], value.detach(), rtol=1e-9, atol=1e-9)
        mean = state.estimates[1][:4]
        torch.testing.assert_close(mean, network[4].running_mean + network[4].running_mean_rest, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oracle": "magic"}, "oracle must be one of 'same', .*, got 'magic'"),
        ({"estimator": "guess"}, "estimator must be one of 'exponential', .*, got 'guess'"),
        ({"order": "any"}, "order must be one of 'algorithm 2', 'layerwise', got 'any'"),
    ],
)
def test_names_that_are_not_known(options, message):
    with pytest.raises(ValueError, match=message):
        next(mcsgd.minimize(toy(), START, drawn(1), 0.1, 0.1, **options))


@pytest.mark.parametrize("oracle", ["independent", "running"])
def test_a_step_for_which_there_are_too_few_batches_is_not_done(oracle):
    needed = {"independent": 2, "running": 1}[oracle]
    batches = list(itertools.islice(drawn(2), 3 * needed + (needed > 1)))
    states = list(mcsgd.minimize(toy(), START, batches, 0.1, 0.5, oracle=oracle))
    assert [state.step for state in states] == [1, 2, 3]
    whole = list(mcsgd.minimize(toy(), START, iter(batches[: 3 * needed]), 0.1, 0.5, oracle=oracle))
    assert states[-1].params == whole[-1].params
    with pytest.raises(
        ValueError, match=rf"at least {needed} for a step with the oracle '{oracle}', got {needed - 1}$"
    ):
        list(mcsgd.minimize(toy(), START, batches[: needed - 1], 0.1, 0.5, oracle=oracle))


def test_a_schedule_that_leaves_its_range_is_named_at_the_step():
    run = mcsgd.minimize(toy(), START, drawn(1), 0.1, lambda k: 0.5 - 0.25 * k)
    assert next(run).step == 1 and next(run).step == 2
    with pytest.raises(ValueError, match=r"alpha at step 2 must be a finite number, above 0 and at most 1, got 0.0"):
        next(run)


@pytest.mark.parametrize(
    "statistic",
    [lambda p, z: p["w"] * z[:, 0], lambda p, z: p["w"] * z, lambda p, z: (p["w"] * z).mean(0), lambda p, z: 1.0],
)
def test_a_statistic_of_another_shape_than_its_estimate_is_named(statistic):
    stage = mcsgd.Stage(lambda p, z, y: y[:1].expand(len(z), 1), statistic, torch.zeros(3))
    problem = mcsgd.Composition([stage], lambda p, z, target: z[:, 0].square())
    x, params = torch.ones(2, 1), {"w": torch.tensor(2.0)}
    message = r"statistic must return one row per sample, shape \(2, 3\) for a start of shape \(3,\), got"
    with pytest.raises(ValueError, match=message):
        next(mcsgd.minimize(problem, params, [(x, None)], 0.1, 0.1))
    with pytest.raises(ValueError, match=message):
        problem.value(params, (x, None))


def test_a_loss_that_is_not_one_number_per_sample_is_named():
    stage = mcsgd.Stage(lambda p, z, y: z - y, lambda p, z: p["w"] * z, torch.zeros(1))
    data, params = (torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([0.0, 1.0, 5.0])), {"w": torch.tensor(2.0)}
    for loss in (lambda p, z, y: (z - y).square(), lambda p, z, y: (z[:, 0] - y).square().mean(), lambda p, z, y: 1.0):
        problem = mcsgd.Composition([stage], loss)
        for call in (
            lambda problem=problem: problem.value(params, data),
            lambda problem=problem: next(mcsgd.minimize(problem, params, [data], 0.1, 0.1)),
        ):
            with pytest.raises(ValueError, match=r"loss must return one number per sample, shape \(3,\), got"):
                call()


def test_the_gradient_does_not_depend_on_no_grad_around():
    expected = next(mcsgd.minimize(toy(), START, drawn(1), 0.1, 0.5, oracle="same")).params
    with torch.no_grad():
        found = next(mcsgd.minimize(toy(), START, drawn(1), 0.1, 0.5, oracle="same")).params
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert any(not torch.equal(value, START[name]) for name, value in found.items())
    with torch.inference_mode(), pytest.raises(RuntimeError, match="minimize must run with gradients"):
        next(mcsgd.minimize(toy(), START, drawn(1), 0.1, 0.5, oracle="same"))


def test_an_empty_batch_is_named():
    x, target = next(drawn(1))
    with pytest.raises(ValueError, match="batches must yield at least one sample each, got an empty batch"):
        next(mcsgd.minimize(toy(), START, [(x[:0], target)], 0.1, 0.5))
