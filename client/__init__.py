"""The site: gate in, policy, ledger, train, gate out."""
