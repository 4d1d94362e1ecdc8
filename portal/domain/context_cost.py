"""Estimate of the model context that a tool definition uses.

Clients send the name, description and input schema of each tool to the model. Tokenizers differ
between models. In current models a token of English or JSON has about four characters, so the
estimate is the length of the definition as compact JSON, divided by four and rounded up.
"""

import json
from collections.abc import Mapping
from typing import Any

_CHARACTERS_PER_TOKEN = 4


def approximate_tokens(name: str, description: str, input_schema: Mapping[str, Any]) -> int:
    """Return the approximate size of one tool definition in model tokens."""
    definition = {"name": name, "description": description, "input_schema": dict(input_schema)}
    text = json.dumps(definition, separators=(",", ":"), ensure_ascii=False)
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
