"""Sampling, clipping, noise, accounting and the ledger: the only room that may make a privacy claim."""
