"""Wrong settings are refused with the name of the setting, what it was and what it must be."""

import pytest

GOOD = {"batchSize": 8, "learningRate": 0.1, "steps": 1}


def with_norm(**norm):
    return {"network": {"norm": norm}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchSize": 0}, "batchSize must be a whole number of at least 1, got 0"),
        ({"batchSize": 1438}, "batchSize must be from 1 to 1437, the number of samples of the data set, got 1438"),
        ({"learningRate": None}, "learningRate must be a number above 0, got null"),
        ({"learningRte": 1}, "settings must be an object with keys among batchSize, learningRate, data"),
        ({"momentum": 1}, "momentum must be at least 0 and below 1, got 1"),
        ({"checkpoints": 0}, "checkpoints must be a whole number of at least 1, got 0"),
        ({"steps": None, "epochs": 0.001}, "epochs must be enough for one step: at least 0.0055"),
        ({"evaluations": ["test"]}, 'evaluations must be one of eval, precise, train, got "test"'),
        ({"data": {"name": "mnist"}}, 'data.name must be one of digits, three_points, two_domains, got "mnist"'),
        ({"data": {"name": "digits", "labels": "none"}}, 'data.labels must be one of true, random, got "none"'),
        ({"data": {"name": "two_domains", "share": 0.4}}, "data.share must be from 0.5 to 1, got 0.4"),
        ({"network": {"hidden": [0]}}, "network.hidden must be a whole number of at least 1, got 0"),
        ({"network": {"placement": "inside"}}, "network.placement must be one of before, after"),
        (with_norm(kind="spectral_norm"), "network.norm.kind must be one of none, batch_norm"),
        (with_norm(kind="full_norm", oracle="exact"), "network.norm.oracle must be one of running, batch"),
        (
            with_norm(kind="full_norm", alpha=0),
            "network.norm.alpha must be above 0 and at most 1, or a schedule, got 0",
        ),
        (
            with_norm(kind="full_norm", alpha={"power": 1}),
            "network.norm.alpha.scale must be a number above 0, got undef",
        ),
        (with_norm(kind="batch_renorm", rMax=0.5), "network.norm.rMax must be at least 1, got 0.5"),
        (with_norm(kind="batch_renorm", momentum=None), "network.norm.momentum must be from 0 to 1"),
        (with_norm(kind="group_norm", groups=3), r"network.norm.groups must be a divisor of every width in .*100,100"),
        (
            with_norm(kind="full_norm", oracle="leave_one_out") | {"batchSize": 1},
            "batchSize must be at least 2 for the",
        ),
        (with_norm(kind="layer_norm", eps=None), "network.norm.eps must be a number above 0, got null"),
        (with_norm(kind="rms_norm", eps=0), "network.norm.eps must be a number above 0, got 0"),
        (with_norm(kind="dynamic_tanh", alpha=0), "network.norm.alpha must be a number above 0, got 0"),
        (
            with_norm(kind="ghost_batch_norm", virtualBatchSize=0.5),
            "network.norm.virtualBatchSize must be a whole number of at least 1, got 0.5",
        ),
        (
            {"network": {"hidden": [9] * 3, "skipConnections": True}},
            r"network.hidden must be an even number of equal widths for skip connections, got \[9,9,9\]",
        ),
        (
            {"network": {"hidden": [9, 8], "skipConnections": True}},
            "network.hidden must be an even number of equal widt",
        ),
        (
            {"network": {"skipConnections": True, "placement": "after"}},
            "network.placement must be before for skip connections",
        ),
        ({"network": {"skipConnections": 1}}, "network.skipConnections must be one of false, true, got 1"),
        ({"evaluationBatchSize": 0}, "evaluationBatchSize must be a whole number of at least 1, got 0"),
        ({"microBatchSize": 3}, r"microBatchSize must be a divisor of batchSize \(8\), got 3"),
        ({"batches": {"construction": "max_labels"}}, "batches.labels must be a whole number of at least 1, got undef"),
        (
            {"batches": {"construction": "max_labels", "labels": 11}},
            "batches.labels must be from 1 to 10, the number of",
        ),
        (
            {"batches": {"construction": "single_label"}, "batchSize": 140},
            "batchSize must be from 1 to 139, the number of samples of the smallest class, got 140",
        ),
    ],
)
def test_a_wrong_setting_is_refused(engine, changes, message):
    (found,) = engine([GOOD | changes])
    with pytest.raises(ValueError, match=message):
        raise ValueError(found["error"])


def test_the_right_ones_are_not(engine):
    (found,) = engine([GOOD])
    assert "error" not in found
