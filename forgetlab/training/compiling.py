"""The backbone's forward pass compiled for training, where a compiler works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from forgetlab.models.memory import out_of_memory
from forgetlab.models.model import Model
from forgetlab.training.torch_state import apart


def compile_backbone(model: Model, loss: Callable[[], Tensor]) -> str:
    """Compile the backbone's forward pass in place; returns "", or a note that says why it runs as written.

    loss: computes the loss of a small batch. It is called, and differentiated, here: a compiler that is missing
    shows at the first use only. No weight changes and the state of the generators is put back.
    """
    model.on_restore(undo)
    model.backbone.compile(dynamic=True)  # batches differ in length
    training = model.training
    model.train()
    try:
        with apart(model), torch.enable_grad():
            loss().backward()
    except Exception as error:  # a compiler fails in many ways, none of which ends a run
        undo(model)
        if out_of_memory(error):
            raise
        reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
        return f"compile: the model runs as written, no compiler works here ({type(error).__name__}: {reason})"
    finally:
        model.train(training)
        for p in model.parameters():
            p.grad = None
    return ""


def undo(model: Model) -> None:
    """Have the backbone run as written."""
    model.backbone._compiled_call_impl = None


def as_written() -> AbstractContextManager[Any]:
    """Within it nothing runs compiled: scoring meets more shapes and modes than are worth compiling for."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6 and later
    return set_stance("force_eager") if set_stance else nullcontext()
