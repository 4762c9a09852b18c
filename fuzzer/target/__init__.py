"""Where a workload runs: on this host, or in a guest with another kernel."""
