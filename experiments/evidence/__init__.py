"""Is SUPMER better than vanilla prompt tuning and PPT? Two meta-trainings, all few-shot cells, the differences."""
