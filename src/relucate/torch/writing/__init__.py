"""Parts of the PyTorch writer (`relucate.torch.writer`)."""
