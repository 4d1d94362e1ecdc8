"""The checks of `portal doctor`: one function each, which yields findings and remedies."""
