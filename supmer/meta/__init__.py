"""The meta-objective and one meta-step, free of Ray and accelerate (METHOD sections 3 to 5)."""
