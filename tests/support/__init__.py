"""What the tests share: data, factories and the real programs that they talk to."""
