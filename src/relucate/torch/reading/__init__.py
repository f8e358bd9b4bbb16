"""The parts of the PyTorch reader (`relucate.torch.read`); what is public is in `reader`."""
