"""The parts of `write`: what the source calls, cloning it, making layers from nodes, names."""
