"""The parts of `write`: unchanged calls, copies of layers, layers from nodes, weights."""
