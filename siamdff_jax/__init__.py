"""SiamDFF in JAX/Flax: single-object tracking of small drones in thermal-infrared video."""
