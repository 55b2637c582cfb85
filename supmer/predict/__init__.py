"""From a tuned prompt to answers: one `Predictor`, used by the batch job and by the endpoint."""
