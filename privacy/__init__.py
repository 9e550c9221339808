"""Sampling, clipping, noise, accounting, ledger: the only room that makes a privacy claim."""
