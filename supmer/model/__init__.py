"""The frozen backbone with its soft prompt, and the gradient regularizer (METHOD sections 3 and 4)."""
