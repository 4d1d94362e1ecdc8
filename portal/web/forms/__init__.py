"""Web forms: they check the format of input. Services check its meaning and name the field."""
