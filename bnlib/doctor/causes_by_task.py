"""Causes in GANs, image translation, reinforcement learning, meta-learning and privacy, which the doctor cannot see."""

from __future__ import annotations

from bnlib.doctor.advice_form import FAILING, PERILS, Advice

CAUSES_BY_TASK: dict[str, Advice] = {
    "q-network": Advice(
        group="training",
        symptom=(
            "Deep Q-learning (DQN) or actor-critic (DDPG, TD3, SAC; reinforcement learning) fails or gets worse with "
            "batch norm, and works without it"
        ),
        cause=(
            "Actions of the replay buffer and of the policy are normalised in separate batches, so BN removes the "
            "difference between them. Or a soft (Polyak) update over `parameters()` leaves out the target network's "
            "running averages, which are buffers. Here `q` is the network, `now` and `following` are its two batches."
        ),
        test="not torch.allclose(q(now), q(torch.cat([now, following]))[: len(now)], atol=1e-3)",
        remedy=(
            "Copy the buffers to the target network as well as the parameters, and put it in eval mode. Or pass both "
            "batches through the network as one joint batch (CrossQ), or use LayerNorm. If batch norm changes "
            "nothing at all, train mode is never on: see the case “BatchNormalization has no effect”."
        ),
        section=f"{PERILS}#target-networks",
    ),
    "discriminator": Advice(
        group="training",
        symptom=(
            "GAN training with batch norm in the discriminator fails, with real and fake images in separate batches: "
            "the discriminator wins (its loss goes to 0), and the generator does not improve"
        ),
        cause=(
            "The discriminator sees real and generated images in separate batches, and BN normalises each with its "
            "own statistics. So it can learn to tell the batches apart in place of the images. Here `critic` is the "
            "discriminator, `real` and `fake` are its batches."
        ),
        test="not torch.allclose(critic(real), critic(torch.cat([real, fake]))[: len(real)], atol=1e-3)",
        remedy=(
            "In the discriminator, use a norm that does not depend on the batch, such as LayerNorm or spectral norm, "
            "or pass real and generated images through it in one batch, also in the generator's step."
        ),
        section=f"{PERILS}#the-discriminator",
    ),
    "gradient-penalty": Advice(
        group="training",
        symptom=(
            "WGAN-GP: with batch norm in the critic, the gradient penalty does not help, or training gets worse or "
            "much slower"
        ),
        cause=(
            "The penalty treats the gradient of each image by itself. With BN, the output for an image depends on the "
            "whole batch. The second derivative of BN is also expensive: a public issue reports that the penalty makes "
            "a step 25 times slower with BN, and 5 times without; in PyTorch 0.4 and before, it could be missing (“the "
            "derivative for 'cudnn_batch_norm_backward' is not implemented”). Here `critic` is the critic, `real` is a "
            "batch."
        ),
        test="not torch.allclose(critic(real)[:2], critic(real[:2]), atol=1e-3)",
        remedy="In the critic, use a norm that does not depend on the batch, such as LayerNorm.",
        section=f"{PERILS}#the-discriminator",
    ),
    "contrastive-training": Advice(
        group="training",
        symptom="Contrastive training (MoCo, SimCLR): the loss falls fast, but the features are useless",
        cause=(
            "A query and its key are normalised with the same other images, so the network can tell from the batch "
            "statistics which key belongs to the query (information leak). Here `encoder` is the network of the keys, "
            "`keys` is a batch."
        ),
        test="not torch.allclose(encoder(keys)[:2], encoder(keys[:2]), atol=1e-3)",
        remedy=(
            "If the negatives come from a queue (MoCo), keep BN on each device, shuffle the keys over the devices "
            "before the encoder, and sort them again behind it (shuffling BN). SyncBatchNorm does not help there: the "
            "keys in the queue come from other batches. If all negatives are in the batch (SimCLR), use SyncBatchNorm. "
            "Or use a norm that does not depend on the batch."
        ),
        section=f"{PERILS}#which-promise-was-broken",
    ),
    "joint-batch-in-one-step": Advice(
        group="training",
        symptom=(
            "GAN: the discriminator sees real and fake images concatenated in one batch, and the generator does not "
            "learn"
        ),
        cause=(
            "In the generator's step, the discriminator gets a batch of fake images only. Its BN then computes other "
            "statistics than in the joint batch, so it judges the same images differently. Here `critic` is the "
            "discriminator, `real` and `fake` are batches."
        ),
        test="not torch.allclose(critic(fake), critic(torch.cat([real, fake]))[len(real) :], atol=1e-3)",
        remedy=(
            "Pass the joint batch through the discriminator in the generator's step, too, or put the discriminator in "
            "eval mode there. Or use a norm that does not depend on the batch, such as LayerNorm."
        ),
        section=f"{PERILS}#the-discriminator",
    ),
    "generator-in-eval-mode": Advice(
        group="eval",
        symptom=(
            "GAN: the generator makes good images in train mode, and noise or bad images in eval mode "
            "(`is_training=False`)"
        ),
        cause=(
            "The generator's running averages do not belong to its weights: the weights change fast, or they are an "
            "average (EMA) that was copied without the buffers. Here `generator` is in train mode, `noise` is a large "
            "batch of its inputs."
        ),
        test="(generator(noise) - copy.deepcopy(generator).eval()(noise)).abs().mean() > 0.5 * generator(noise).std()",
        remedy=(
            "Recompute the statistics from new noise, as in `torch.optim.swa_utils.update_bn(noise_batches, generator)`"
            " (Keras: call `generator(noise, training=True)` many times), then generate in eval mode."
        ),
        section=f"{FAILING}#running-averages",
    ),
    "image-to-image": Advice(
        group="eval",
        symptom=(
            "Pix2pix, U-Net, an autoencoder or another image-to-image network (image translation): good "
            "images in training, and blurred, noisy or black images at test time with `eval()` or Keras's `predict`, "
            "which are good again with batch norm in train mode"
        ),
        cause=(
            "In training with one image per batch, BN normalises each image by its own statistics, as instance norm "
            "does. Eval mode uses averages over all images, which the network never saw. Here `network` is a "
            "copy (`copy.deepcopy`), because the test moves the averages, and `images` is one batch of training."
        ),
        test="(network.train()(images) - network.eval()(images)).abs().mean() > 0.5 * network.train()(images).std()",
        remedy=(
            "If you trained with one image per batch, predict in the same way: one image per batch, BN in train mode "
            "(Keras: `model(x, training=True)` in place of `predict`). For eval mode, train with InstanceNorm, or "
            "with larger batches. If dropout is to be off, call `eval()` on the dropout layers."
        ),
        section=f"{FAILING}#small-batches",
    ),
    "image-to-image-tested-in-train-mode": Advice(
        group="eval",
        symptom=(
            "Pix2pix or another image-to-image network, trained with several images per batch: good images in "
            "training, and weird or bad ones from the test script (`test.py`), which takes one image at a time "
            "and does not call `eval()`"
        ),
        cause=(
            "The test script leaves the network in train mode, so BN normalises the single image by its own "
            "statistics. In training, it used those of several images. Here `model` is the network as the test script "
            "uses it, `x` is a batch of training."
        ),
        test="any(bn.training for bn in bns) and len(x) > 1",
        remedy=(
            "Call `model.eval()` before you predict (in pytorch-CycleGAN-and-pix2pix, run `test.py --eval`). You need "
            "not train again. See the other cases about images for batches of one, and for InstanceNorm."
        ),
        section=f"{PERILS}#predictions-in-train-mode",
    ),
    "meta-learning": Advice(
        group="eval",
        symptom=(
            "Meta-learning (MAML, few-shot): the accuracy collapses with `eval()` in the inner loop or at test time, "
            "or it changes with the number of query images"
        ),
        cause=(
            "Each task has statistics of its own, and running averages over all tasks fit none of them. In train mode, "
            "the query images are normalised together, so each prediction depends on the others (transductive). Here "
            "`query` is a batch of query images."
        ),
        test="not torch.allclose(model.train()(query)[:2], model.train()(query[:2]), atol=1e-3)",
        remedy=(
            "Use a norm that does not depend on the batch, or compute the statistics of a task from its support "
            "images only. If you keep train mode, say so with the result, and use the same number of query images "
            "everywhere."
        ),
        section=f"{PERILS}#why-no-single-statistic-is-right",
    ),
    "policy-in-two-modes": Advice(
        group="training",
        symptom=(
            "PPO or another policy gradient (reinforcement learning) is unstable with batch norm: the ratio of new to "
            "old probabilities is not 1 in the first update, before any step; or the policy (Stable-Baselines3, RLlib) "
            "stops with “Expected more than 1 value per channel” when it predicts an action for a single observation"
        ),
        cause=(
            "The policy acts on a few observations (in a rollout, often one) and is updated on larger batches. BN "
            "normalises the same observation with other statistics, so the policy that is updated is not the one that "
            "acted. Here `policy` is the network, `observations` is a batch."
        ),
        test="not torch.allclose(policy(observations)[:2], policy(observations[:2]), atol=1e-3)",
        remedy=(
            "Use LayerNorm, or normalise the observations before the network with averages that stay the same between "
            "a rollout and its updates. With BN, call `policy.eval()` to act and to predict, and use eval mode in the "
            "updates, too."
        ),
        section=f"{PERILS}#target-networks",
    ),
    "differential-privacy": Advice(
        group="error",
        symptom=(
            "Opacus stops with “BatchNorm cannot support training with differential privacy” or (older versions) “grad "
            "sampler is not yet implemented for BatchNorm2d”"
        ),
        cause=(
            "Differential privacy needs the gradient of each sample by itself. With BN, the gradient of a sample "
            "depends on the other samples in the batch."
        ),
        test="any(p.requires_grad for bn in bns for p in bn.parameters())",
        remedy=(
            "Replace BN with GroupNorm before training: `opacus.validators.ModuleValidator.fix(model)`. A pretrained "
            "BN layer can stay if it is frozen: `requires_grad_(False)` and `eval()`."
        ),
        section=f"{PERILS}#which-promise-was-broken",
    ),
    "attack-in-train-mode": Advice(
        group="batch",
        symptom=(
            "Adversarial examples (PGD, FGSM): the robust accuracy drops or changes after `model.eval()`, or an attack "
            "with epsilon 0 does not give the clean accuracy"
        ),
        cause=(
            "The attack runs in train mode. It then attacks a network that normalises with the batch, and each of its "
            "forward passes updates the running averages."
        ),
        test="any(bn.training for bn in bns)",
        remedy=(
            "Call `model.eval()` before the attack and before you measure the accuracy, and `model.train()` for the "
            "training step only."
        ),
        section=f"{PERILS}#predictions-in-train-mode",
    ),
    "dropout-at-inference": Advice(
        group="batch",
        symptom=(
            "Monte Carlo (MC) dropout: with `model.train()` at test time, the uncertainty and the predictions depend "
            "on the batch"
        ),
        cause="`train()` turns on dropout, and it also lets BN use the statistics of the batch.",
        test="any(bn.training for bn in bns)",
        remedy=(
            "Call `model.eval()`, then turn on dropout only: `for m in model.modules(): m.train(isinstance(m, "
            "nn.modules.dropout._DropoutNd))`."
        ),
        section=f"{PERILS}#predictions-in-train-mode",
    ),
    "one-set-of-averages-for-all-tasks": Advice(
        group="after",
        symptom=(
            "Continual learning (tasks one after the other) with batch norm: the accuracy on an old task falls "
            "(forgetting), even with frozen weights"
        ),
        cause=(
            "The running averages follow the data of the new task, also in layers whose weights are frozen. Here "
            "`batches` holds data of the old task."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Keep the buffers of each task, and load them with the task, or use `bnlib.DomainBatchNorm`. Or freeze BN "
            "after the first task: call `eval()` on its layers after each `model.train()`."
        ),
        section=f"{PERILS}#why-no-single-statistic-is-right",
    ),
    "adapted-too-often": Advice(
        group="batch",
        symptom=(
            "Test-time adaptation by entropy minimisation (TENT): the first pass over the test set improves the "
            "accuracy, and each further pass (epoch) makes it worse"
        ),
        cause=(
            "Each step makes the predictions more certain, also the wrong ones, because there are no labels to correct "
            "them. So gamma and beta drift away. The method is made for one step on each batch of a stream. Here "
            "`once` and `again` are the networks after one pass and after several."
        ),
        test="F.cross_entropy(again(x), y) > 1.2 * F.cross_entropy(once(x), y)",
        remedy=(
            "Stop after one pass, lower the learning rate, and load the trained weights again before each new stream."
        ),
        section=f"{PERILS}#test-time-adaptation",
    ),
}
"""Causes that belong to one kind of training, by a short name."""
