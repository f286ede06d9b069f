"""The remedies of the table with their dials, and how a rung of a dial is chosen: on validation texts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIRST = 3  # rungs that are tried first
WIDER = 2  # times that a dial is widened where the best rung is the last one tried


@dataclass(frozen=True)
class Row:
    """A remedy: its text, the dial as {} ("@ rate" where it has a learning rate of its own), and the dial's rungs.

    first: number of the first of the rungs that are tried first. every: steps between looks. stops: it looks at scores,
    and so gets those of validation texts. ends: its weights on the way are not what it hands out. long: it is run for
    longer too, as parts that are added learn slowly.
    """

    spec: str
    rungs: tuple[float, ...] = ()
    first: int = 0
    every: int = 20
    stops: bool = False
    ends: bool = False
    long: bool = False

    def at(self, rung: float | None) -> str:
        """The text at a rung, such as "ewc:lam=100"."""
        return self.spec if rung is None else self.spec.format(f"{rung:g}".replace("e+", "e"))

    def start(self) -> tuple[float | None, ...]:
        return self.rungs[self.first : self.first + FIRST] or (None,)


def ladder(low: float, high: float) -> tuple[float, ...]:
    """1, 3, 10, 30, … from low to high.

    >>> ladder(0.3, 10)
    (0.3, 1.0, 3.0, 10.0)
    """
    rungs = [float(f"{digit}e{power}") for power in range(-6, 8) for digit in (1, 3)]
    return tuple(rung for rung in rungs if low <= rung <= high)


def chosen(balances: Mapping[float | None, float]) -> float | None:
    """The rung with the best balance on the validation texts; of equal ones the first."""
    return max(balances, key=lambda rung: balances[rung])


def beyond(rungs: Sequence[float], balances: Mapping[float | None, float]) -> float | None:
    """The next rung to try: the one past the edge on which the best one stands; None where it stands inside.

    At the end of the dial there is none either.

    >>> beyond((1, 3, 10, 30), {1: 0.2, 3: 0.5, 10: 0.7}), beyond((1, 3, 10), {1: 0.2, 3: 0.5, 10: 0.4})
    (30, None)
    """
    best, tried = chosen(balances), sorted(rung for rung in balances if rung is not None)
    if best is None or not at_edge(balances):
        return None
    place = rungs.index(best) + (1 if best == tried[-1] else -1)
    return rungs[place] if 0 <= place < len(rungs) else None


def at_edge(balances: Mapping[float | None, float]) -> bool:
    """Whether the best rung is the lowest or the highest that was tried."""
    tried = sorted(rung for rung in balances if rung is not None)
    return len(tried) > 1 and chosen(balances) in (tried[0], tried[-1])


RATES = ladder(1e-4, 1e-1)  # of parts that are added: the three from 1e-3 on come first
SHARES = (0.05, 0.125, 0.25, 0.5, 0.75, 0.9)

ROWS = {
    "none": Row("none", long=True),
    "lower rate": Row("none @ {}", (3e-5, 1e-4, 2e-4, 3e-4, 5e-4), 1),
    "l2sp": Row("l2sp:lam={}", ladder(1e-3, 1), 2),
    "l2sp, proximal": Row("l2sp:lam={},proximal=1", ladder(1, 300), 2),
    "ewc": Row("ewc:lam={}", ladder(1, 1e4), 3),
    "ewc, proximal": Row("ewc:lam={},proximal=1", ladder(1e3, 1e7), 3),
    "ewc-adam": Row("ewc-adam:strength={}", ladder(0.1, 300), 3),
    "online-ewc": Row("online-ewc:lam={}", ladder(1, 1e4), 2),
    "si": Row("si:lam={}", ladder(0.3, 300), 2),
    "mas": Row("mas:lam={}", ladder(1e-5, 1e-1), 2),
    "orthogonal": Row("orthogonal:share={}", (0.05, 0.125, 0.25, 0.5, 0.75, 0.9), 2),
    "lwf": Row("lwf:lam={}", ladder(0.03, 10), 1),
    "kl-anchor": Row("kl-anchor:beta={}", ladder(0.03, 30), 2),
    "replay": Row("replay:ratio={}", SHARES, 1),
    "generative": Row("generative:ratio={}", SHARES, 1),
    "multitask": Row("multitask"),
    "frozen": Row("frozen @ {}", ladder(1e-3, 3), 2, long=True),
    "adapters": Row("adapters:width=64 @ {}", RATES, 2, long=True),
    "adapters, shared": Row("adapters:width=64,shared=1 @ {}", RATES, 2, long=True),
    "lora": Row("lora:r=4,alpha=8,targets=all @ {}", RATES, 2, long=True),
    "lora, one task": Row("lora:r=4,alpha=8,targets=all,shared=0 @ {}", RATES, 2, long=True),
    "columns": Row("columns:width=64 @ {}", RATES, 2, long=True),
    "layerwise-rates": Row("layerwise-rates:factor={}", (1.2, 1.5, 2, 2.6, 4, 7, 12), 1),
    "warmup": Row("warmup:share={}", (0.03, 0.1, 0.3, 0.6, 0.9), 1),
    "cosine": Row("cosine"),
    "slanted-triangular": Row("slanted-triangular"),
    "gradual-unfreezing": Row("gradual-unfreezing"),
    "ULMFiT": Row("layerwise-rates+slanted-triangular+gradual-unfreezing @ {}", ladder(3e-4, 1e-1), 2),
    "early-stopping": Row("early-stopping:task=all,patience={}", (2, 5, 10, 20, 40), 2, every=5, stops=True, ends=True),
    "safety-brake": Row(
        "safety-brake:drop={}", (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7), 2, every=5, stops=True, ends=True
    ),
    "pcgrad": Row("pcgrad"),
    "agem": Row("agem"),
    "wise": Row("wise:alpha={}", (0.1, 0.3, 0.5, 0.7, 0.9), 1, ends=True),
    "replay + ewc": Row("replay:ratio=0.25+ewc:lam={}", ladder(0.1, 300), 2),
}
