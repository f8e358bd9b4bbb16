"""From a Keras model to a Graph: what each layer and operation computes."""
