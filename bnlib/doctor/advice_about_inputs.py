"""The advice for findings about what enters the statistics, and about gamma and beta that were not trained."""

from __future__ import annotations

from bnlib.doctor.advice_form import FAILING, FORMULA, TRAINING, Advice

ABOUT_INPUTS: dict[str, Advice] = {
    "features-in-last-dimension": Advice(
        group="training",
        symptom=(
            "BatchNorm1d in place of LayerNorm in a transformer or recurrent network runs only with sequences of one "
            "length, and hardly helps"
        ),
        cause=(
            "The layer gets inputs of shape (N, L, C). Batch norm takes dimension 1 for the features, so it normalises "
            "each position. Without an error, that works if L = C. Here `x` is the input of the layer."
        ),
        test="x.dim() == 3 and x.size(1) == x.size(2)",
        remedy=(
            "Put the features in dimension 1: `norm(x.transpose(1, 2)).transpose(1, 2)`, or `norm(x.flatten(0, "
            "1)).view_as(x)`. Or use LayerNorm, which takes the last dimension."
        ),
        section=FORMULA + "#forward",
    ),
    "repeated-samples": Advice(
        group="training",
        symptom="Training is as noisy as with tiny batches, although the batch size is large",
        cause=(
            "The samples of a batch are copies of a few, or most of them only fill up the batch. Copies do not make "
            "the statistics of a batch more precise."
        ),
        test="len(x.unique(dim=0)) <= len(x) / 2",
        remedy=(
            "Draw different samples for each batch, and look for an index that stays the same in the data set. Leave "
            "out samples that only fill up a batch: a mask in the loss does not keep them out of the statistics."
        ),
        section=FAILING + "#small-batches",
    ),
    "padding-in-statistics": Advice(
        group="training",
        symptom=(
            "With padded sequences (text, audio clips of different lengths), graphs or images, the training loss "
            "depends on which sizes share a batch; sorting by length changes the result"
        ),
        cause=(
            "The zeros behind short sequences or around small images enter the mean and the variance of each batch. "
            "In the test, `x` has the shape (N, C, L) or (N, C, H, W)."
        ),
        test="(x == 0).all(1).float().mean() > 0.2",
        remedy=(
            "Normalise the real positions only: bring `x` into the shape (N, L, C), and set `x[mask] = norm(x[mask])`, "
            "where `mask` is true at real positions. Or put sequences or images of similar sizes into a batch, or use "
            "LayerNorm."
        ),
        section=FORMULA + "#forward",
    ),
    "outliers": Advice(
        group="eval",
        symptom="Eval mode is bad, recomputed statistics do not help, and the loss of single batches jumps",
        cause=(
            "A few samples have values far larger than all others, such as wrong units, sensor faults or missing "
            "values coded as 9999. One of them decides the variance of its batch, and the running variance fits none."
        ),
        test="max(x.var() for x, y in batches) > 10 * torch.stack([x.var() for x, y in batches]).median()",
        remedy=(
            "Look at the samples of that batch. Clip or scale the inputs (a logarithm for heavy tails), or remove "
            "what is wrong in the data, and train again. A larger batch does not help, because the variance still "
            "belongs to the few large values."
        ),
        section=FORMULA + "#two-modes-and-the-averages-between-them",
    ),
    "gamma-and-beta-not-trained": Advice(
        group="after",
        symptom="After training, gamma is still exactly 1 and beta exactly 0 in some layers",
        cause=(
            "No optimiser has these parameters, for example because the parameters were split into groups with and "
            "without weight decay and one group was forgotten. Or they get no gradient, or were initialised again."
        ),
        test="any((bn.weight == 1).all() and (bn.bias == 0).all() for bn in bns)",
        remedy=(
            "Compare the parameters of the optimiser with `model.parameters()`: `sum(len(group['params']) for group in "
            "optimiser.param_groups)`. Look for `detach()`, for outputs that the loss does not use, and for an "
            "initialisation after the weights were loaded. If gamma and beta are meant to stay, use `affine=False` or "
            "`requires_grad_(False)`."
        ),
        section=TRAINING + "#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
}
"""The advice for each of these findings, by the finding's code."""
