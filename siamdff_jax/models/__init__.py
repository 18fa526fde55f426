"""The network: backbone, neck, STEN, DSFAM, DCFAM, correlation, head, and the whole of it in `siamdff`."""
