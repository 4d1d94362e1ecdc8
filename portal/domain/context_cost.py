"""How much of a model's context a tool takes up, before anybody calls it: an estimate, and what it
rests on.

Clients send a model the name, the description and the input schema of each tool. How text becomes
tokens differs from model to model; a token of English or JSON is about four characters in those in
use, so the estimate is the number of characters of the definition, written as JSON without blanks,
divided by four and rounded up.
"""

import json
from collections.abc import Mapping
from typing import Any

_CHARACTERS_PER_TOKEN = 4


def approximate_tokens(name: str, description: str, input_schema: Mapping[str, Any]) -> int:
    """About how many tokens the definition of one tool costs a model each time its tools are
    listed."""
    definition = {"name": name, "description": description, "input_schema": dict(input_schema)}
    text = json.dumps(definition, separators=(",", ":"), ensure_ascii=False)
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
