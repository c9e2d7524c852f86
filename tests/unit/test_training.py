"""The training loop, the networks it trains and the batches it draws."""

import numpy as np
import pytest
import torch

import bnlib
from bnlib import datasets, models, training
from bnlib.schedules import StepDecay

POINTS = datasets.load("three_points")


def small(norm=bnlib.BatchNorm, seed=0):
    return models.mlp((3, 8, 3), norm, seed=seed)


def test_the_same_seed_gives_the_same_run_and_another_another():
    runs = [
        training.fit(small(), POINTS, batch_size=2, lr=0.1, epochs=5, checkpoints=5, seed=seed, progress=False)
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    training.fit(small(), POINTS, batch_size=2, lr=0.1, epochs=2, progress=False)
    assert torch.equal(state, torch.get_rng_state())


def test_training_learns():
    history = training.fit(small(None), POINTS, batch_size=3, lr=0.5, epochs=400, progress=False)
    assert history.train_loss[0] > 0.8 and history.train_loss[-1] < 0.2 and history.test_error[-1] == 0


def test_a_step_is_plain_sgd():
    model, twin = small(None), small(None)
    list(training.iterate(model, POINTS, batch_size=3, lr=0.1, epochs=1, checkpoints=1))
    loss = torch.nn.functional.cross_entropy(twin(POINTS.train_x), POINTS.train_y)
    for parameter, trained, gradient in zip(
        twin.parameters(), model.parameters(), torch.autograd.grad(loss, twin.parameters()), strict=True
    ):
        torch.testing.assert_close(trained, parameter - 0.1 * gradient)


def test_the_first_point_comes_before_the_first_step():
    model, twin = small(), small()
    done, total, history = next(training.iterate(model, POINTS, batch_size=1, lr=0.1, epochs=4))
    assert (done, total) == (0, 12) and history.epoch == [0.0]
    for parameter, initial in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, initial)


def test_points_are_spread_evenly_and_end_at_the_end():
    *_, (done, total, history) = training.iterate(small(), POINTS, batch_size=1, lr=0.1, epochs=4, checkpoints=4)
    assert done == total == 12 and history.epoch == [0, 1, 2, 3, 4]


def test_divergence_is_a_result():
    history = training.fit(models.mlp((3, 3)), POINTS, batch_size=3, lr=1e38, epochs=20, progress=False)
    assert history.diverged and len(history.epoch) < 21


def test_the_error_rate_is_measured_in_eval_mode_and_leaves_the_mode():
    model = small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training.error_rate(model, POINTS.test_x, POINTS.test_y)
    assert model.training
    torch.testing.assert_close(model.state_dict(), before)


def half_frozen(seed=0):
    """A network with BN in eval mode and weights that are not trained."""
    model = small(seed=seed)
    model[2].eval().requires_grad_(False)
    model[1].weight.requires_grad_(False)
    return model


def modes(model):
    return [module.training for module in model.modules()]


class Failing(torch.nn.Module):
    def forward(self, x):
        raise OSError("no power")


@pytest.mark.parametrize("part", [torch.nn.Identity(), Failing()])
def test_an_evaluation_leaves_the_mode_of_each_submodule(part):
    model = torch.nn.Sequential(half_frozen(), part)
    before = modes(model)
    try:
        training.error_rate(model, POINTS.test_x, POINTS.test_y)
    except OSError:
        assert type(part) is Failing
    assert modes(model) == before


def test_what_is_frozen_is_not_trained_alone_or_in_a_stack():
    settings = {"batch_size": 3, "epochs": 6, "checkpoints": 3}
    alone, start = half_frozen(), half_frozen()
    before = modes(alone)
    *_, (_, _, history) = training.iterate(alone, POINTS, lr=0.2, **settings)
    assert modes(alone) == before and alone[1].bias.ne(start[1].bias).any()
    for name in ("1.weight", "2.weight", "2.bias", "2.running_mean", "2.num_batches_tracked"):
        assert torch.equal(alone.state_dict()[name], start.state_dict()[name]), name
    rates = [0.2, 0.1]
    *_, (_, _, both) = training.iterate_many(
        [half_frozen(), half_frozen()], POINTS, lrs=rates, seeds=[0, 0], **settings
    )
    assert both[0].test_loss == pytest.approx(history.test_loss) and both[1].test_loss != both[0].test_loss


def test_a_model_in_eval_mode_is_trained_in_train_mode():
    model = small().eval()
    list(training.iterate(model, POINTS, batch_size=3, lr=0.1, epochs=1))
    assert all(modes(model)) and model[2].num_batches_tracked == 1


def test_a_model_that_writes_into_its_input_does_not_spoil_the_data():
    class Doubling(torch.nn.Module):
        def forward(self, x):
            return x.mul_(2)

    data = datasets.three_points()
    training.fit(torch.nn.Sequential(Doubling(), small()), data, batch_size=3, lr=0.1, epochs=2, progress=False)
    torch.testing.assert_close(data.test_x, POINTS.test_x)


def test_the_default_device_and_type_of_pytorch_do_not_matter():
    expected = training.fit(small(), "three_points", batch_size=2, lr=0.1, epochs=2, progress=False)
    model = small()
    with torch.device("meta"):
        assert training.fit(model, "three_points", batch_size=2, lr=0.1, epochs=2, progress=False) == expected


@pytest.mark.parametrize("batch_size", [0, 4])
def test_a_batch_size_that_cannot_be_is_named(batch_size):
    with pytest.raises(ValueError, match=rf"^batch_size must .*, got {batch_size}$"):
        next(training.iterate(small(), POINTS, batch_size=batch_size, lr=0.1))


def test_the_linear_layers_start_the_same_with_and_without_norm():
    plain, normed = (
        [m.weight for m in small(norm).modules() if isinstance(m, torch.nn.Linear)] for norm in (None, bnlib.BatchNorm)
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, normed, strict=True))
    assert not torch.equal(plain[0], small(seed=1)[1].weight)


def test_an_mlp_needs_two_sizes():
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        models.mlp((3,))


def test_the_optimiser_and_the_schedule_of_its_learning_rate_are_used():
    model, twin = small(None), small(None)
    settings = {"batch_size": 3, "lr": 0.1, "optimiser": torch.optim.Adam, "schedule": StepDecay(every=2, factor=0.5)}
    training.fit(model, POINTS, epochs=5, progress=False, **settings)
    optimiser = torch.optim.Adam(twin.parameters())
    for lr in (0.1, 0.1, 0.05, 0.05, 0.025):
        optimiser.param_groups[0]["lr"] = lr
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(twin(POINTS.train_x), POINTS.train_y).backward()
        optimiser.step()
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_each_step_is_recorded_if_asked_for():
    history = training.fit(
        small(), POINTS, batch_size=1, lr=0.1, epochs=4, checkpoints=2, record_step_loss=True, progress=False
    )
    assert len(history.step_loss) == 12
    assert history.train_loss == pytest.approx([history.step_loss[0], *np.reshape(history.step_loss, (2, 6)).mean(1)])
    assert 0 <= min(history.train_error) <= max(history.train_error) <= 1


def test_a_callback_sees_each_step_and_can_end_the_run():
    seen, model = [], small()

    def callback(step, trained, index):
        seen.append((step, index.tolist()))
        assert trained is model
        return step == 5

    settings = {"batch_size": 1, "lr": 0.1, "epochs": 4, "checkpoints": 4}
    history = training.fit(model, POINTS, callbacks=[callback], progress=False, **settings)
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5] and history.epoch == [0, 1, 5 / 3] and not history.diverged
    assert sorted(index for _, [index] in seen[:3]) == [0, 1, 2]


def test_an_interrupted_fit_says_what_the_model_holds():
    def interrupt(step, *_):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        training.fit(small(), POINTS, batch_size=1, lr=0.1, epochs=4, checkpoints=4, callbacks=[interrupt])
    assert caught.value.__notes__ == ["The model has its weights after at least 6 of 12 steps."]


class Dictionary(torch.nn.Linear):
    def forward(self, x):
        return {"logits": super().forward(x)}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Dictionary(3, 3), {}, r"model must return logits of shape \(3, 3\), got a dict of 1"),
        (torch.nn.Linear(3, 2), {}, r"model must return logits of shape \(3, 3\), got a Tensor of shape \(3, 2\)"),
        (torch.nn.Flatten(0), {}, "model must have a parameter with requires_grad=True to train, got none"),
        (small(), {"batches": lambda *_: iter([torch.arange(3)] * 4)}, "batches .* without end, got 4 for 10 steps"),
        (small(), {"optimiser": lambda parameters, lr: None}, r"optimiser\(.*\) must be an optimiser of .*, got None"),
        (small(), {"schedule": lambda epoch: None}, r"schedule\(0.0\) must be a finite number, at least 0, got None"),
        (small(), {"epoch": 3}, "settings must be arguments of iterate, got 'epoch'; did you mean 'epochs'?"),
        (small(), {"callbacks": print}, "callbacks must be a list of functions, got <built-in function print>"),
    ],
)
def test_what_cannot_be_trained_is_explained(model, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        training.fit(model, POINTS, batch_size=3, lr=0.1, progress=False, **options)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_is_refused(context):
    with context(), pytest.raises(RuntimeError, match=r"with gradients, got torch.no_grad\(\) or torch.inference_mode"):
        next(training.iterate(models.three_point_network(seed=0), "three_points", batch_size=3, lr=0.1))


def test_an_optimiser_that_needs_a_closure_is_refused():
    model = models.three_point_network(seed=0)
    with pytest.raises(ValueError, match="optimiser must take steps without a closure, got LBFGS"):
        next(training.iterate(model, "three_points", batch_size=3, lr=0.1, optimiser=torch.optim.LBFGS))
