"""What the tokens of models cost, as an estimate: providers change prices, and grant discounts nobody here knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

MILLION: Final = 1_000_000


class Price(BaseModel):
    """US dollars for a million tokens that a model reads (`input`) and writes (`output`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


def _table(text: str) -> dict[str, Price]:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: Price(input=float(read), output=float(written)) for name, read, written in rows}


BUILT_IN: Final[Mapping[str, Price]] = _table("""
gpt-3.5-turbo 0.5 1.5
gpt-4 30 60
gpt-4-turbo 10 30
gpt-4o 2.5 10
gpt-4o-mini 0.15 0.6
gpt-4.1 2 8
gpt-4.1-mini 0.4 1.6
gpt-4.1-nano 0.1 0.4
gpt-5 1.25 10
gpt-5-mini 0.25 2
gpt-5-nano 0.05 0.4
o1 15 60
o1-mini 1.1 4.4
o3 2 8
o3-mini 1.1 4.4
o4-mini 1.1 4.4
claude-3-haiku 0.25 1.25
claude-3-sonnet 3 15
claude-3-opus 15 75
claude-3-5-haiku 0.8 4
claude-3-5-sonnet 3 15
claude-3-7-sonnet 3 15
claude-haiku-4 1 5
claude-sonnet-4 3 15
claude-opus-4 15 75
claude-opus-4-5 5 25
gemini-1.5-flash 0.075 0.3
gemini-1.5-pro 1.25 5
gemini-2.0-flash 0.1 0.4
gemini-2.5-flash 0.3 2.5
gemini-2.5-flash-lite 0.1 0.4
gemini-2.5-pro 1.25 10
mistral-small 0.1 0.3
mistral-large 2 6
deepseek-chat 0.27 1.1
deepseek-reasoner 0.55 2.19
""")
"""List prices that providers have published, by the beginning of a model's name."""


@dataclass(frozen=True, slots=True)
class Pricing:
    """The built-in prices with others laid over them.

    >>> pricing = Pricing({"mine": Price(input=1, output=2)})
    >>> pricing.cost("mine-large", 1_000_000, 500_000)
    2.0
    >>> pricing.cost("openai/gpt-4o-mini-2024-07-18", 1_000_000, 0)
    0.15
    >>> pricing.cost("nobody-knows-it", 1, 1) is None
    True
    """

    over: Mapping[str, Price]

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """Estimate in US dollars what tokens cost; None for an unknown model."""
        price = self._price(model)
        if price is None:
            return None
        return round((input_tokens * price.input + output_tokens * price.output) / MILLION, 10)

    def _price(self, model: str) -> Price | None:
        """Find the price with the longest beginning of the name; what stands before a `/` is the provider's."""
        prices = {name.lower(): price for name, price in {**BUILT_IN, **self.over}.items()}
        names = (model.lower(), model.lower().rpartition("/")[2])
        known = [prefix for prefix in prices if any(name.startswith(prefix) for name in names)]
        return prices[max(known, key=len)] if known else None
