"""FGCR (Medical Image Analysis 2024, 103163): whole slides and their reports in one space, and four ways to search it."""
