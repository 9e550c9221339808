"""From global model to signed bundle: distil, export, quantize, gate, bundle, verify."""
