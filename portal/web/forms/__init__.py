"""Forms: the shape of what people type; its meaning is checked below, and comes back to the field
it is about."""
