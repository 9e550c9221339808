"""The coordinator: round engine, admission, store, publishing, result and report."""
