"""Weights that are added to a model, and can be switched off or taken away."""

from __future__ import annotations

from typing import Any

from torch import nn

from forgetlab.models.model import Model


class Addition(nn.Module):
    """Weights added to a model, and the hooks through which they take part while `on`."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.made_by = ""
        self.handles: list[Any] = []

    def attach(self, model: Model) -> None:
        """Change the model so that the weights can take part; `remove` undoes it, also where it was broken off."""

    def weights(self) -> list[nn.Parameter]:
        """The weights that were added."""
        return list(self.parameters())

    def switch(self, on: bool) -> None:
        """Let the weights take part, or leave the model exactly as it was."""
        self.on = on

    def remove(self) -> None:
        """Undo every change of the model but the registration of this module."""
        for handle in self.handles:
            handle.remove()
