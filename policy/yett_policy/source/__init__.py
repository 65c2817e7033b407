"""Policy sources: what users write, checked field by field, read into the internal model."""
