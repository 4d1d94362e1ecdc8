"""The pictures of README and docs, taken from `portal demo` in a real browser (`make
screenshots`)."""
