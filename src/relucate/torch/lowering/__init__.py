"""From a Graph to a channels-last PyTorch module with the same arithmetic."""
