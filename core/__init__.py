"""The nouns every room shares: plan, mechanism spec, messages, layout, codec, digest, errors."""
