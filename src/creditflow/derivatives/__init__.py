"""What the backward pass of any PyTorch model is worth: `check_gradient` tests it, `exact_gradients` replaces it."""
