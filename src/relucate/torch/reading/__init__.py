"""The parts of the PyTorch reader (`relucate.torch.read`); what is public stands in `reader`."""
