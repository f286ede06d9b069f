"""torchmetrics."""

from typing import Any

import torch
from torchmetrics.functional import kl_divergence
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_matthews_corrcoef
from torchmetrics.text import Perplexity

PEER = "torchmetrics"
NOTES = {
    "perplexity": "takes logits and targets as they are: the caller shifts and marks padding (ignore_index), as here",
    "expected_calibration_error": "norm='l1'",
}


def kl_before_after(before: Any, after: Any) -> Any:
    p, q = (torch.tensor(x).softmax(-1) for x in (before, after))
    return kl_divergence(p, q)


def kl_after_before(before: Any, after: Any) -> Any:
    return kl_before_after(after, before)


def perplexity(table: Any, texts: Any, end: int) -> Any:
    metric, log_p = Perplexity(ignore_index=-100), torch.tensor(table).log()
    most = max(map(len, texts))
    targets = torch.tensor([text[1:] + [-100] * (most - len(text)) for text in texts])
    seen = torch.tensor([text[:-1] + [end] * (most - len(text)) for text in texts])
    return metric(log_p[seen], targets)


def expected_calibration_error(probabilities: Any, labels: Any, bins: int) -> Any:
    p, y = torch.tensor(probabilities), torch.tensor(labels)
    return multiclass_calibration_error(p, y, num_classes=p.shape[1], n_bins=bins, norm="l1")


def matthews(labels: Any, predictions: Any) -> Any:
    classes = max(*labels, *predictions) + 1
    return multiclass_matthews_corrcoef(torch.tensor(predictions), torch.tensor(labels), num_classes=classes)
