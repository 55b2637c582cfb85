"""`supmer prompt-tune` as a script, for `ray job submit` and for checkouts that are not installed."""

from supmer.jobs.prompt_tune import JOB

if __name__ == "__main__":
    JOB.main()
