"""The workings of the use cases: they read and write rows for a use case that has asked already whether it may."""
