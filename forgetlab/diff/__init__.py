"""What did a fine-tune cost? Two finished models, before and after: `python -m forgetlab diff BEFORE AFTER`."""
