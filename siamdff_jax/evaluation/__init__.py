"""How good a tracker was: result files, metrics, one protocol per benchmark, reports. NumPy only, no JAX."""
