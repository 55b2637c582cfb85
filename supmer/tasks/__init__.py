"""The five self-supervised task formats as pure functions, and the episodes made of them (METHOD section 2)."""
