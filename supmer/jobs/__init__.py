"""What each job's command does: `supmer JOB` and `python pipeline/JOB.py` call the same `JOB.main`."""
