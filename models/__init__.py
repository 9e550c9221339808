"""Which open model a federation fine-tunes, what of it trains, and how it is measured."""
