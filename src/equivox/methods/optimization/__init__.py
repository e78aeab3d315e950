"""Methods that change gradients, learning rates or who learns when."""
