"""Fine-tuning as an iterator: the loop, the step, the protocol of a remedy, and what a run yields."""

from forgetlab.training.loop import finetune
from forgetlab.training.method import Method, Part, Run
from forgetlab.training.record import Record

__all__ = ["Method", "Part", "Record", "Run", "finetune"]
