"""Parts of the PyTorch writer (`relucate.torch.writing.writer`)."""
