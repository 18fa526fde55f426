"""Data for SiamDFF: files -> sequences -> pairs -> batches. Importable without JAX."""
