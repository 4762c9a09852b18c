"""What happened and what came back: stamps, histories, trees, recoveries. Pure data, no I/O."""
