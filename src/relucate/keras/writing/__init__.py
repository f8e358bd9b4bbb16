"""The parts of `write`: which calls are whole, copies of layers, layers from nodes, weights."""
