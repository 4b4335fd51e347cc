"""Bounds: (positive scores, negative scores) -> an estimate that grows with the mutual information I(X; Y).

Pure functions, side by side, with one contract. For an anchor y and a critic T:

    positive (...,)     T(x, y) for x, y of the same image
    negative (..., K)   T(x', y) for x' of other images; -inf marks a candidate that does not take part

`negative` broadcasts over `positive`'s dimensions: (B, 1, K) against (B, L) says that the L positives of an anchor share its K
negatives, and nothing is expanded to (B, L, K). All arithmetic is float32 whatever arrives. Every function averages over anchors
and returns a scalar to be maximised; what is minimised is its negative.

| function | one log ... | in nats | at most | with few negatives |
|---|---|---|---|---|
| `infonce` | per positive | lower bound of I(X; Y) | log(K + 1) | loses accuracy (Figure 8 of Deep InfoMax) |
| `infonce_set` | per anchor, of a set of positives | no; the mean over positives is | log(P + K) | as `infonce` |
| `donsker_varadhan` | for the whole batch | lower bound of I(X; Y) | unbounded, high variance | biased upwards |
| `jensen_shannon` | none | no: a divergence of its own | 0 | hardly changes |
| `nce` | none | no: a likelihood, for K drawn out of N | 0 | needs the constant Z |
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def unmasked(scores: Tensor) -> Tensor:
    """How many scores of each row are not -inf, (..., K) -> (...) float32, exact for K below 2^24.

    >>> import torch
    >>> unmasked(torch.tensor([[0.0, -torch.inf, 1.0]]))
    tensor([2.])
    """
    # In floating point: on a CPU bools, and their sum, take ten times as long, and longer than all the exponentials.
    return scores.detach().clone().ne_(-torch.inf).sum(dim=-1)


def all_unmasked(scores: Tensor) -> Tensor:
    """How many scores are not -inf, a scalar; in double precision between the rows, of which there may be 2^24 scores in all."""
    return unmasked(scores).double().sum().float()


def infonce(positive: Tensor, negative: Tensor, reduction: str = "mean") -> Tensor:
    r"""InfoNCE: tell the positive from K negatives; a lower bound of I(X; Y) in nats, at most log(K + 1).

    .. math:: \hat I = E\big[ p - \log \tfrac{1}{K + 1} ( e^{p} + \textstyle\sum_{k=1}^{K} e^{n_k} ) \big]

    Deep InfoMax eq. 5, CMC eq. 2 and 6 (both omit the constant log(K + 1), which makes it a bound in nats). K counts the
    unmasked negatives of each row.

    Args:
        positive: (...,) scores of the positives.
        negative: (..., K) scores of their negatives, broadcast over `positive`; -inf = masked out.
        reduction: "mean", or "none" for the summand of each positive, whose negative is the loss map of Figure 13.

    Returns:
        A scalar, or (...,) without reduction; in nats.

    >>> import torch
    >>> infonce(torch.zeros(4), torch.zeros(4, 7))  # a blind critic knows nothing
    tensor(0.)
    """
    positive, negative = positive.float(), negative.float()
    negative_mass = negative.logsumexp(dim=-1)  # (...), before any broadcast to positive's dims
    candidates = unmasked(negative) + 1  # K + 1 of each row
    log_mean = torch.logaddexp(positive, negative_mass) - candidates.log()
    estimates = positive - log_mean
    return estimates if reduction == "none" else estimates.mean()


def infonce_set(positive: Tensor, negative: Tensor, separately: bool = False) -> Tensor:
    r"""InfoNCE with a set of positives for each anchor: Local Aggregation's objective, on a scale that `infonce` shares.

    .. math:: \hat L = E\big[ \log \textstyle\sum_c e^{p_c} - \log \tfrac{1}{|B|} \textstyle\sum_{b \in B} e^{s_b} \big], \quad
              B = \text{positives} \cup \text{negatives}

    Eq. 2 of Wu et al. 2020 plus log |B|, where C_i is the set of positives and B_i the background. With one positive it is
    `infonce` (Lemma 5.2). A set can only add to it: L^LA >= L^LA0 on the same scores, for p(C) >= p(i), the opposite of what Lemma
    5.3 states, whose proof swaps a sum for a mean. So it is no lower bound of I(X; Y): a blind critic reaches log P. The mean over
    the positives of each one's own logarithm is a bound, of the information between an image and the views of its neighbourhood,
    and Lemma 5.3 does hold for it where the own image is the best of the set.

    Args:
        positive: (..., P) scores of the positives; -inf = no positive.
        negative: (..., K) scores of the negatives; -inf = masked out.
        separately: return the mean over the positives instead, which is a bound in nats and what is reported.

    Returns:
        A scalar.

    >>> import torch
    >>> infonce_set(torch.zeros(4, 2), torch.zeros(4, 6))  # a blind critic: log 2
    tensor(0.6931)
    >>> infonce_set(torch.zeros(4, 2), torch.zeros(4, 6), separately=True)
    tensor(0.)
    """
    positive, negative = positive.float(), negative.float()
    mass = torch.logaddexp(positive.logsumexp(dim=-1), negative.logsumexp(dim=-1))  # (...)
    several = positive.isfinite()
    log_mean = mass - (several.sum(dim=-1) + unmasked(negative)).log()
    if separately:
        return (positive.where(several, 0.0).sum(dim=-1) / several.sum(dim=-1) - log_mean).mean()
    return (positive.logsumexp(dim=-1) - log_mean).mean()


def donsker_varadhan(positive: Tensor, negative: Tensor, moving_average: Tensor | None = None) -> Tensor:
    r"""Donsker-Varadhan: a lower bound of I(X; Y) = KL(joint || product of marginals) in nats, without a ceiling.

    .. math:: \hat I = E_J[p] - \log E_M[e^{n}]

    Deep InfoMax eq. 2. The expectation over the product of marginals M runs over all unmasked negatives of the batch inside one
    logarithm, which `infonce` takes per positive: that is why this one has no ceiling, and a larger variance. Each of several
    processes takes its own anchors' (see `negatives.InBatch`).

    Args:
        positive: (...,) scores of the positives.
        negative: (..., K) scores of the negatives; -inf = masked out.
        moving_average: a scalar running mean of E_M[e^n] (MINE, Belghazi et al. 2018, sec. 3.2). When given, the gradient of
            the log term is e^n / moving_average instead of e^n / (mean of this batch), which removes the bias of small
            batches; the value returned is unchanged. The caller updates it.

    Returns:
        A scalar, in nats.

    >>> import torch
    >>> donsker_varadhan(torch.ones(4), torch.zeros(4, 7))
    tensor(1.)
    """
    positive, negative = positive.float(), negative.float()
    count = all_unmasked(negative)
    log_mean_exp = negative.flatten().logsumexp(dim=0) - count.log()  # scalar: log E_M[e^n]
    if moving_average is None:
        return positive.mean() - log_mean_exp
    value = log_mean_exp.detach()
    correction = (
        value - moving_average.log()
    ).exp()  # (mean of this batch) / (running mean), a factor of the gradient alone
    return positive.mean() - (value + (log_mean_exp - value) * correction)


def jensen_shannon(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Jensen-Shannon: binary cross-entropy of positives against negatives. Grows with I(X; Y), but is no bound of it.

    .. math:: \hat I = E_J[-\mathrm{sp}(-p)] - E_M[\mathrm{sp}(n)], \quad \mathrm{sp}(z) = \log(1 + e^z)

    Deep InfoMax eq. 4 as printed: no shift by 2 log 2, so a blind critic scores -2 log 2 = -1.386 and a perfect one 0.
    Positives are excluded from the product of marginals (A.2), which is the caller's mask or choice of negatives.

    Args:
        positive: (...,) scores of the positives.
        negative: (..., K) scores of the negatives; -inf = masked out.

    Returns:
        A scalar, at most 0; not in nats of mutual information.

    >>> import torch
    >>> jensen_shannon(torch.zeros(4), torch.zeros(4, 7))
    tensor(-1.3863)
    """
    positive, negative = positive.float(), negative.float()
    count = all_unmasked(negative)
    marginal = F.softplus(negative).sum() / count  # softplus(-inf) = 0: masked candidates add nothing
    return -F.softplus(-positive).mean() - marginal


def nce(positive: Tensor, negative: Tensor, log_z: Tensor | float, num_data: int) -> Tensor:
    r"""Noise-contrastive estimation of the softmax over all N data: is this the positive, or one of m drawn uniformly?

    .. math:: \hat J = E\big[ \log P(D{=}1 \mid p) + \textstyle\sum_{k=1}^{m} \log (1 - P(D{=}1 \mid n_k)) \big], \quad
              P(D{=}1 \mid s) = \frac{e^{s} / Z}{e^{s} / Z + m / N}

    CMC eq. 10 and 11. The noise term is the sum over the m negatives of each row; eq. 11 as printed takes their mean, which is
    not NCE (Gutmann and Hyvarinen, 2010) and weighs the noise m times too little. Unlike `infonce` it compares every score with
    a constant, so that Z matters: `log_partition` estimates it from a batch, and a running mean of that is to be preferred to
    the first batch's alone.

    Args:
        positive: (...,) scores of the positives.
        negative: (..., m) scores of negatives drawn uniformly from the data, broadcast over `positive`; -inf = masked out.
        log_z: log Z, a scalar; no gradient is meant to flow into it.
        num_data: N.

    Returns:
        A scalar, at most 0; not in nats of mutual information.

    >>> import torch
    >>> nce(torch.zeros(4), torch.zeros(4, 1), log_z=0.0, num_data=1)  # a blind critic: two times log 1/2
    tensor(-1.3863)
    """
    positive, negative = positive.float(), negative.float()
    shift = math.log(num_data) - log_z - unmasked(negative).log()  # (...): log N / (m Z) of each row
    noise = F.softplus(negative + shift.unsqueeze(-1)).sum(dim=-1)  # softplus(-inf) = 0: the masked add nothing
    return -(F.softplus(-(positive + shift)) + noise).mean()


def log_partition(negative: Tensor, num_data: int) -> Tensor:
    r"""The logarithm of CMC's Z = sum over all N data of e^score, estimated from some of them: log N + log of the mean of e^n.

    Args:
        negative: (..., K) scores of data drawn uniformly; -inf = masked out.
        num_data: N.

    Returns:
        A scalar, without gradient.

    >>> import torch
    >>> log_partition(torch.zeros(4, 7), num_data=100)  # log 100
    tensor(4.6052)
    """
    negative = negative.detach().float()
    return negative.flatten().logsumexp(dim=0) - all_unmasked(negative).log() + math.log(num_data)


Bound = Callable[[Tensor, Tensor], Tensor]

#: The names that configurations use.
BOUNDS: dict[str, Bound] = {"infonce": infonce, "dv": donsker_varadhan, "jsd": jensen_shannon}

#: Those whose value is a lower bound of the mutual information in nats.
IN_NATS = frozenset({"infonce", "dv"})
