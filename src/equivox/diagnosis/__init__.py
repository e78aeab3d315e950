"""What is wrong with a trained multimodal network, measured: see `diagnose`."""
