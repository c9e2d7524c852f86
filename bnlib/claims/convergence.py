"""Claims tested in chapter 12, the theory of Full Normalization."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.thresholds import EXACT
from bnlib.experiments.convergence import convergence_rates, equation_7, theorem_2


def _convergence_slopes(*cells: tuple, name: str):
    def measure(results: Results) -> Effects:
        found = {}
        for problem, oracle, power, a, steps in cells:
            row = results("convergence.convergence_rates", problem, oracle, power, a, steps)
            slope = convergence_rates.fitted_slope(row, steps, name)
            found[f"fitted power, problem {problem}, oracle {oracle}, p = {power}, a = {a}"] = np.array(
                sorted({slope.lowest, slope.median, slope.highest})
            )
        return found

    return measure


def _growth_of_weighted_sum(results: Results) -> Effects:
    return {
        f"power with which the sum grows, {oracle}, p = {p}, a = {a}": theorem_2.growth_exponents(
            results("convergence.theorem_2", oracle, p, a)
        )
        for oracle, p, a in (("largest bias", 0.8, 0.4), ("largest bias", *theorem_2.MISSING_CONDITION))
    }


def _errors_of_equation_7(results: Results) -> Effects:
    """Return the largest errors relative to the gradient, so rounded that rounding errors are 0."""
    errors = equation_7.largest_errors()
    return {
        "relative error, as printed": round(errors["printed"], 11),
        "relative error, as operators": round(errors["operators"], 11),
    }


_LEMMA_1_CELLS = [
    ("quadratic", "independent", 0.8, 0.4, 6000),
    ("quadratic", "independent", 0.9, 0.2, 6000),
    ("network", "running", 0.8, 0.4, 2000),
]
_COROLLARY_3_CELLS = [
    ("quadratic", "independent", 0.8, 0.4, 6000),
    ("logistic", "independent", 0.8, 0.4, 6000),
    ("network", "independent", 0.8, 0.4, 2000),
]


CLAIMS = (
    Claim(
        "lian-lemma-1", "lian2019", "Lemma 1",
        "If the averaging weight of Algorithm 2 falls like the number of steps to the power -a, the squared error of "
        "its estimates falls at least as fast, where this term dominates.",
        "12_convergence#rates", _convergence_slopes(*_LEMMA_1_CELLS, name="error"),
        (("in each of three settings, the fitted power is at most 0.06 above -a", lambda e: all(
            np.median(v) < -float(n.rsplit(" ", 1)[1]) + 0.06 for n, v in e.items())),),
        quantifier="always",
    ),
    Claim(
        "lian-corollary-3", "lian2019", "Corollary 3",
        "With the powers 4/5 for the learning rate and 2/5 for the averaging weight, the mean squared gradient of "
        "Algorithm 2 falls at least as fast as the number of steps to the power -1/5.",
        "12_convergence#rates", _convergence_slopes(*_COROLLARY_3_CELLS, name="average"),
        (("in each of three settings, the fitted power is below -0.2",
          lambda e: max(np.median(v) for v in e.values()) < -0.2),),
        quantifier="always",
        note="The fitted powers are at least three times as large as that of the bound. The theorem does not cover the "
        "same-batch oracle.",
    ),
    Claim(
        "lian-equation-7", "lian2019", "equation (7)",
        "The gradient of the objective is the product of equation (7) as printed, with an expectation in each factor.",
        "12_convergence#exercise-4-equation-7-of-the-paper", _errors_of_equation_7,
        (("with the expectation of the derivative of the statistics taken on its own, the product equals the gradient "
          "to within 10⁻⁹ in all of 20 problems",
          lambda e: e["relative error, as printed"].max() < EXACT),),
        quantifier="always",
        exact_because="all expectations are means over the samples of 20 problems",
        note="Tested with one normaliser after a linear layer. As printed, the factor of a normaliser is 0 for every "
        "sample, because normalised values do not change if all inputs are shifted.",
    ),
    Claim(
        "lian-theorem-2", "lian2019", "Theorem 2 as printed",
        "For all powers p of the learning rate and a of the averaging weight with a < 2p - 1 and a < 1/2, the "
        "weighted sum of squared gradients is bounded, so their mean falls like the number of steps to the power p - "
        "1.",
        "12_convergence#theorem-2-lacks-a-condition", _growth_of_weighted_sum,
        (("with p = 0.62, a = 0.23 and a gradient estimate whose bias is as large as the assumption allows, the sum "
          "grows from step 3,000 to step 30,000 more slowly than the number of steps to the power 0.05",
          lambda e: np.median(e["power with which the sum grows, largest bias, p = 0.62, a = 0.23"]) < 0.05),),
        quantifier="always",
        note="Chapter 12 proves that the sum has no bound here if p + a <= 1. With p + a > 1 and 3p - 2a > 1 in place "
        "of the printed conditions, the theorem follows from Lemma 1. If a < 1/2 is a misprint of a > 1/2, the "
        "theorem is true, but then Corollary 3 does not follow from it.",
    ),
    Claim(
        "lian-equation-7-operators", "lian2019", "equation (7)",
        "The gradient of the objective is equation (7), read as operators: everything to the right of an expectation "
        "is inside it.",
        "12_convergence#exercise-4-equation-7-of-the-paper", _errors_of_equation_7,
        (("read as operators, equation (7) equals the gradient to within 10⁻⁹ in all of 20 problems",
          lambda e: e["relative error, as operators"].max() < EXACT),),
        quantifier="always",
        exact_because="all expectations are means over the samples of 20 problems",
        note="Tested with one normaliser after a linear layer.",
    ),
    Claim(
        "lian-slower", "lian2019", "section 5.2",
        "Because of the estimation error, Algorithm 2 converges more slowly than SGD without normalisation.",
        "12_convergence#rates",
        quantifier="tendency",
        untested_because="The paper compares two upper bounds, with the powers -1/5 and -1/2. A test of the algorithm "
        "itself would need SGD on the same problems. With p = 0.8 and a = 0.4, Algorithm 2 falls faster than both "
        "powers on three of our problems, and like the power -0.3 on a fourth.",
    ),
)  # fmt: skip
