"""Predictions of chapter 7, why is my BN failing. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "learnt-by-heart",
        "A small network with batch norm has learnt 100 random target values by heart, in batches of 4 samples that "
        "were never shuffled. In train mode its squared error is {printed_batches:.1f}; the constant answer 0 would "
        "give 1. What is its error on the same samples in eval mode?",
        {
            "Below 0.3": lambda eval_mode: eval_mode < 0.3,
            "0.3 to 0.8": lambda eval_mode: 0.3 <= eval_mode <= 0.8,
            "Above 0.8": lambda eval_mode: eval_mode > 0.8,
        },
        reason="The median error over 20 seeds is {eval_mode:.1f}. Eval mode is not the cause, because the error is "
        "{reshuffled_batches:.1f} in train mode, too, if the batches of 4 are new. The network has learnt its "
        "batches of four, and not the single samples.",
    ),
    Prediction(
        "micro-batches",
        "Every training step uses 256 samples, but batch norm sees them in smaller micro-batches. Go down from "
        "micro-batches of 256. Where does the test error in eval mode first rise by more than 2 percentage points?",
        {
            "At 16 or earlier": lambda first: first >= 16,
            "At 8": lambda first: 8 <= first < 16,
            "At 4": lambda first: 4 <= first < 8,
            "At 2, or not at all": lambda first: first < 4,
        },
        reason="The test error first rises with micro-batches of {first}. The error in train mode rises much "
        "earlier: with micro-batches of 8 it is already {noisy:.1f} %, against {whole:.1f} % with 256. Most of this "
        "difference is the noise of the statistics, which eval mode does not have.",
    ),
    Prediction(
        "young-averages",
        "After 50 training steps at a learning rate of 0.03, you evaluate a network twice: with its running averages, "
        "and with the exact statistics of the training data. For which momentum do the running averages cost more "
        "than 5 percentage points of test error: PyTorch's default of 0.1, or 0.01 (Keras's default)?",
        {
            "For 0.1 only": lambda torch, keras: torch > 5 >= keras,
            "For 0.01 only": lambda torch, keras: keras > 5 >= torch,
            "For both": lambda torch, keras: torch > 5 and keras > 5,
            "For neither": lambda torch, keras: torch <= 5 and keras <= 5,
        },
        reason="The running averages cost {keras:.0f} percentage points at a momentum of 0.01 and {torch:.1f} at 0.1. "
        "After 50 steps with a momentum of 0.01, the initial values, mean 0 and variance 1, still have more than half "
        "of the weight.",
    ),
    Prediction(
        "tiny-inputs",
        "All inputs of a network are multiplied by 0.0001, and the ε of batch norm is lowered to 10⁻¹⁴ to make up for "
        "it. The linear layers before batch norm have a bias in one network and none in the other. Which of the "
        "networks has a test error below 10 %?",
        {
            "Both": lambda bias, without: bias < 10 and without < 10,
            "Only the one with biases": lambda bias, without: bias < 10 <= without,
            "Only the one without biases": lambda bias, without: without < 10 <= bias,
            "Neither": lambda bias, without: bias >= 10 and without >= 10,
        },
        reason="The test error is {bias:.0f} % with biases and {without:.1f} % without. The gradient of a bias "
        "before batch norm is 0 on paper, but rounding errors move it by many standard deviations of these tiny "
        "inputs, and the running mean cannot follow.",
    ),
    Prediction(
        "small-gamma",
        "All batch norm layers start with γ = 0.001 in place of 1, and each of them comes before a ReLU. One network "
        "has two hidden layers, another has eight. Which of them learns to classify digits with a test error "
        "below 20 %?",
        {
            "Both": lambda two, eight: two < 20 and eight < 20,
            "Only the one with two layers": lambda two, eight: two < 20 <= eight,
            "Only the one with eight layers": lambda two, eight: eight < 20 <= two,
            "Neither": lambda two, eight: two >= 20 and eight >= 20,
        },
        reason="The test error is {two:.0f} % with two layers and {eight:.0f} % with eight. A small γ makes the next "
        "layer's variance small, compared with ε, so the signal and the gradient shrink from layer to layer.",
    ),
    Prediction(
        "zero-gamma",
        "In a residual network each branch ends with a batch norm layer. These layers start with γ = 0, so each block "
        "passes its input on unchanged. How does the network train, compared with a start at γ = 1?",
        {
            "It learns nothing: the error stays above 80 %": lambda zero, one: zero > 80,
            "It learns, but ends more than 3 points worse": lambda zero, one: one + 3 < zero <= 80,
            "It ends within 3 points of γ = 1, or better": lambda zero, one: zero <= min(one + 3, 80),
        },
        reason="The test error is {zero:.1f} % from γ = 0 and {one:.1f} % from γ = 1. The skip connections carry the "
        "gradient past the zeros, so γ gets a gradient and starts to grow.",
    ),
    Prediction(
        "layers-in-a-list",
        "A network keeps some of its batch norm layers in a plain Python list in place of nn.ModuleList. After "
        "model.eval(), you classify the same images twice, in two different batches. What do you see?",
        {
            "The outputs are equal, as eval mode promises": lambda errors_of_2, errors_of_360: (
                errors_of_2 <= 2 * errors_of_360
            ),
            "The outputs depend on the batch": lambda errors_of_2, errors_of_360: errors_of_2 > 2 * errors_of_360,
        },
        reason="In batches of 360 images the test error is about {errors_of_360:.0f} %, but in batches of 2 it is "
        "about {errors_of_2:.0f} %. PyTorch does not register modules in a plain list, so model.eval() does "
        "not reach them.",
    ),
]
