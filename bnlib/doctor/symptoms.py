"""The symptom table: from what one sees to the cause, the test, the cure and the section."""

from __future__ import annotations

from bnlib.doctor.advice import ADVICE, Advice
from bnlib.doctor.causes_about_other_norms import CAUSES_ABOUT_OTHER_NORMS
from bnlib.doctor.causes_by_kind_of_network import CAUSES_BY_KIND_OF_NETWORK
from bnlib.doctor.causes_by_task import CAUSES_BY_TASK
from bnlib.doctor.causes_in_exporters import CAUSES_IN_EXPORTERS
from bnlib.doctor.causes_in_other_frameworks import CAUSES_IN_OTHER_FRAMEWORKS
from bnlib.doctor.causes_in_tools import CAUSES_IN_TOOLS
from bnlib.doctor.causes_of_errors import CAUSES_OF_ERRORS
from bnlib.doctor.causes_of_stale_statistics import CAUSES_OF_STALE_STATISTICS
from bnlib.doctor.causes_that_are_no_fault import CAUSES_THAT_ARE_NO_FAULT
from bnlib.doctor.causes_without_a_finding import CAUSES_WITHOUT_A_FINDING, IN_TRAINING_CODE
from bnlib.doctor.headings import heading, place

SYMPTOM_GROUPS: dict[str, str] = {
    "error": "The loss is NaN, or training raises an error",
    "eval": "Good in train mode, bad in eval mode",
    "batch": "Predictions depend on the batch",
    "training": "Training is slow, stuck or erratic",
    "after": "Worse after loading, exporting or fine-tuning",
    "devices": "Several devices",
}
"""What one sees first: the headings of the symptom table by the key of the group."""

SYMPTOM_PARTS: dict[str, dict[str, str]] = {
    "error": {
        "An error message about the shape of the input": "one-value-per-channel features-differ number-of-dimensions "
        "one-position-per-channel layer-norm-with-channels-first groups-do-not-divide-channels",
        "Another error message": "number-types-differ norm-keeps-its-input counter-in-checkpoint "
        "instance-norm-buffers pickled-by-another-version old-weight-norm plain-tensor-statistics "
        "average-keeps-the-graph update-bn-stopped "
        "two-passes-in-ddp sync-norm-on-cpu functional-transform differential-privacy fused-in-train-mode "
        "norm-not-installed too-large-for-cudnn eps-of-zero activation-inside-the-norm "
        "keras-arrays-differ",
        "An error message on export": "quantised-norm-alone channels-unknown-to-the-exporter "
        "averages-taken-for-parameters",
        "An error message of Flax": "immutable-statistics statistics-collection-missing axis-without-name",
        "NaN or inf": "overflow-in-half-precision own-norm-overflows non-finite-values "
        "negative-variance feature-hardly-varies fused-with-zero-gamma root-of-zero "
        "running-average-of-an-empty-batch one-active-site",
    },
    "eval": {
        "Any network": "running-statistics-mismatch too-few-updates running-statistics-never-updated "
        "eval-worse-than-train eval-mode-distorted dropout-in-front unusual-momentum not-trained-yet overfitting",
        "Keras, TensorFlow or Flax": "keras-call-without-training one-average-for-all-steps "
        "freeze-false-means-training update-operations-not-run statistics-thrown-away",
        "Small, sorted or fixed batches": "relies-on-batch-statistics batches-not-representative "
        "batch-composition-memorised",
        "Image translation, GANs, meta-learning": "image-to-image image-to-image-tested-in-train-mode "
        "instance-norm-tracks generator-in-eval-mode "
        "meta-learning one-noise-level",
        "New or unusual data": "covariate-shift domain-statistics-differ outliers rounded-bias",
        "A layer that is called or loaded in an unusual way": "shared-layer gradient-checkpointing two-passes-per-step "
        "statistics-of-constant-batches statistics-not-tracked layers-share-statistics",
    },
    "batch": {
        "": "train-mode-at-inference eval-depends-on-batch no-running-statistics training-written-into-the-call "
        "rounding compiled-differently slices-on-mps predictions-change-the-model test-time-adaptation "
        "adapted-too-often "
        "output-before-the-step "
        "attack-in-train-mode explained-in-train-mode dropout-at-inference padding-in-each-sample "
        "statistics-of-each-tile",
    },
    "training": {
        "Any network": "zero-gamma small-batches loss-higher-in-train-mode trained-in-eval-mode "
        "batches-never-reshuffled repeated-samples small-last-batch variance-below-eps norm-at-the-output "
        "bias-without-gradient unstable-rate decay-of-gamma negative-gamma runs-differ",
        "Another norm, another axis or another framework": "one-value-per-group keras-wrong-axis equinox-in-mode-ema "
        "instance-norm-on-other-axis norm-gives-zeros norm-breaks-memory-format less-noise-than-batch-norm "
        "global-statistics-in-mxnet",
        "A deep network": "gradient-explosion small-gamma",
        "A transformer or recurrent network, padded sequences": "padding-in-statistics features-in-last-dimension "
        "norm-sees-later-tokens norm-behind-the-sum",
        "A detector": "frozen-before-training",
        "A GAN": "discriminator joint-batch-in-one-step gradient-penalty droplets",
        "Reinforcement learning, contrastive training": "q-network policy-in-two-modes contrastive-training "
        "collapse-without-norm",
    },
    "after": {
        "Loading a checkpoint": "checkpoint-without-buffers checkpoint-never-had-averages "
        "adapter-without-buffers counters-differ parameters-renamed",
        "Fine-tuning and frozen layers": "fine-tuning frozen-layer-updates-statistics frozen-statistics-mismatch "
        "frozen-norm-without-eps unfrozen-later pretrained-keras-base frozen-base-in-tensorflow-one norm-replaced "
        "gamma-and-beta-not-trained counted-as-non-trainable tracking-off-is-not-freezing "
        "one-set-of-averages-for-all-tasks",
        "Averaged weights (EMA, SWA), other changes of the weights": "averaged-weights average-too-long "
        "weights-changed-afterwards removed-channels-were-not-zero",
        "Export, conversion between frameworks, a batch norm of your own": "exported-in-train-mode "
        "exported-without-statistics keras-defaults eps-is-not-in-the-weights momentum-of-the-other-convention "
        "converted-in-the-wrong-order stored-gamma-minus-one exported-graph-stays-in-train-mode "
        "converted-in-training-mode compared-in-two-modes group-norm-of-one-group own-norm-differs",
        "Folding, quantisation, half precision": "folded folded-into-a-transposed-convolution quantised "
        "half-precision-statistics rounded-to-half-precision "
        "exported-in-half-precision recomputed-at-inference",
    },
    "devices": {
        "Data parallelism and SyncBatchNorm": "small-batch-per-device statistics-per-process sync-norm-hangs "
        "sync-norm-in-data-parallel "
        "converted-without-its-activation batches-of-different-sizes "
        "sampler-without-set-epoch replicas-keep-their-own-averages processes-wait",
        "Federated learning": "averaged-parameters federated-clients",
    },
}
"""The parts of each group, with the names of their rows in the order of the table."""

TEST_SETUP = """\
model = copy.deepcopy(model)  # some of the tests change the mode or the statistics
bns = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
x, y = next(iter(batches))
F.cross_entropy(model(x), y).backward()
scores = losses_by_mode(model, batches)
loss = {mode: score.losses.mean() for mode, score in scores.items()}
"""
"""The code that defines the names in the tests, from ``model`` and ``batches``."""


def all_advice() -> dict[str, Advice]:
    """Return the advice for each finding by its code, and for each cause without a finding by a short name.

    Example:
        >>> doctor.all_advice()["zero-gamma"].section
        'chapters/07_why_is_my_bn_failing.ipynb#gamma-is-zero'
    """
    more = CAUSES_OF_ERRORS | CAUSES_WITHOUT_A_FINDING | IN_TRAINING_CODE | CAUSES_OF_STALE_STATISTICS
    more = more | CAUSES_BY_TASK | CAUSES_IN_OTHER_FRAMEWORKS | CAUSES_ABOUT_OTHER_NORMS
    more = more | CAUSES_IN_EXPORTERS | CAUSES_BY_KIND_OF_NETWORK
    return ADVICE | more | CAUSES_THAT_ARE_NO_FAULT | CAUSES_IN_TOOLS


def symptom_rows(group: str) -> list[dict[str, str]]:
    """Return the rows of the symptom table for one group, for ``tables.CaseTable``.

    Beside its texts, a row has its ``part`` of the group and its ``anchor`` on the page.

    Arguments:
        group: a key of ``SYMPTOM_GROUPS``.

    Raises:
        ValueError: there is no such group.

    Example:
        >>> (row,) = (row for row in doctor.symptom_rows("training") if "`zero-gamma`" in row["how to tell"])
        >>> row["likely cause"]
        'Gamma and beta of a layer in front of a ReLU are 0.'
        >>> print(row["how to tell"])
        `any(not bn.weight.grad.any() for bn in bns)`
        The doctor reports `zero-gamma`.
    """
    if group not in SYMPTOM_GROUPS:
        raise ValueError(f"group must be one of {', '.join(SYMPTOM_GROUPS)}, got {group!r}")
    advice, parts = all_advice(), SYMPTOM_PARTS[group]
    return [_row(name, advice[name], part) for part, names in parts.items() for name in names.split()]


def symptom_anchor(name: str) -> str:
    """Return where the row of a name stands on the page of chapter 7.

    Example:
        >>> doctor.symptom_anchor("zero-gamma")
        'symptom-zero-gamma'
    """
    return f"symptom-{name}"


def _row(name: str, advice: Advice, part: str) -> dict[str, str]:
    doctor = f"\nThe doctor reports `{name}`." if name in ADVICE else ""
    return {
        "what you see": advice.symptom,
        "likely cause": advice.cause,
        "how to tell": f"`{advice.test}`{doctor}",
        "cure": f"{advice.remedy} {_link(advice.section)}",
        "part": part,
        "anchor": symptom_anchor(name),
    }


def _link(section: str) -> str:
    """Return a link, in Markdown, from a notebook in the same folder."""
    page = section.rpartition("/")[2]
    where = place(section)
    return f"[{where[0].upper()}{where[1:]}, “{heading(section)}”]({page})"
