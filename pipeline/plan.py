"""`supmer plan` as a script, for `ray job submit` and for checkouts that are not installed."""

from supmer.jobs.plan import JOB

if __name__ == "__main__":
    JOB.main()
