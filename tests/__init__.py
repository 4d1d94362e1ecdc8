"""The tests; `CONTRIBUTING.md` says how to run them."""

import gc

# Nearly all that a test process makes (modules, tests, statements) is kept: looking for garbage
# seldom saves a tenth of the time.
gc.set_threshold(50_000, 20, 20)
