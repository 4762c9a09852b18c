"""The pipe: run a workload, cut the power, recover, judge, keep what is forbidden."""
