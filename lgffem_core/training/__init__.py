"""Training: one loop for every system, its checkpoints, schedules and losses."""
