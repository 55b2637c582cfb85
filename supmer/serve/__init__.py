"""Many tuned prompts behind one address: an HTTP front, and replicas of each frozen backbone, on Ray Serve."""
