"""A whole consortium in one process, on the same engine, strategy, codec and site objects."""
