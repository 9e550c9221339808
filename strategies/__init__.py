"""How admitted updates combine into the next global model; NumPy only."""
