"""A site's records and the public sets: raw values in, never a statistic out."""
