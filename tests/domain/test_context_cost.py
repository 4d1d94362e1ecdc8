"""The estimate of the model context that a tool uses."""

from portal.domain.context_cost import approximate_tokens


def test_a_token_is_four_characters_of_the_definition_as_json() -> None:
    nothing = approximate_tokens("", "", {})
    assert nothing == -(-len('{"name":"","description":"","input_schema":{}}') // 4)
    assert approximate_tokens("", "x" * 4_000, {}) == nothing + 1_000
    assert approximate_tokens("", "", {"ü" * 100: "日本"}) < nothing + 30


def test_a_part_of_a_token_counts() -> None:
    costs = [approximate_tokens("x" * length, "", {}) for length in range(5)]
    assert costs[4] == costs[0] + 1
    assert costs == sorted(costs)
    assert set(costs) == {costs[0], costs[4]}
