"""How pairs reach the step: from the host by tf.data, or from the accelerator's own memory. One stream of pairs."""
