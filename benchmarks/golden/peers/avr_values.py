"""avr-cl."""

from typing import Any

from avr.run import compute_metrics
from avr.verify import compute_ppl
from table_model import table_model

PEER = "avr-cl"
NOTES = {
    "forgetting_measure": "`ff` of avr.run.compute_metrics",
    "perplexity": "avr.verify.compute_ppl, its chat layout taken away so that it sees the text alone; "
    "it serves as a ratio before and after",
}


class Bare:
    """A tokenizer without the chat layout and the end token that the package puts around an example."""

    eos_token = ""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: Any, **_: Any) -> str:
        return messages[1]["content"]

    def __call__(self, text: str, **how: Any) -> Any:
        return self.tokenizer(text, **how)


def average_accuracy(R: Any) -> float:
    return compute_metrics(R, range(len(R)))["acc"]


def backward_transfer(R: Any) -> float:
    return compute_metrics(R, range(len(R)))["bwt"]


def forgetting_measure(R: Any) -> float:
    return compute_metrics(R, range(len(R)))["ff"]


def perplexity(table: Any, texts: Any, end: int) -> float:
    model, tokenizer = table_model(table, end)
    return compute_ppl(model, Bare(tokenizer), [("", " ".join(map(str, text)), "") for text in texts], device="cpu")
