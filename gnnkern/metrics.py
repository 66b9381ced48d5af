"""Scores of a classification: accuracy, and the area under the ROC curve for two classes."""

import torch
from torch import Tensor


def accuracy(
    logits: Tensor,  # [N, C]
    y: Tensor,  # [N]
) -> float:
    """Return the share of rows whose largest score is that of their class."""
    return float((logits.argmax(1) == y).double().mean())


def roc_auc(
    logits: Tensor,  # [N, 2]
    y: Tensor,  # [N], 0 or 1
) -> float:
    """Return the probability that a random 1 is scored above a random 0; equals count half.

    Not a number where one of the classes does not occur.
    """
    score = logits[:, 1] - logits[:, 0]  # [N]
    _, group, count = torch.unique(score, return_inverse=True, return_counts=True)
    # Equal scores share the mean of the ranks they take up.
    rank = (count.cumsum(0).double() - (count.double() - 1) / 2)[group]  # [N]
    positive = y == 1
    num_positive = int(positive.sum())
    num_negative = len(y) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    pairs_won = float(rank[positive].sum()) - num_positive * (num_positive + 1) / 2
    return pairs_won / (num_positive * num_negative)
