"""FGCR (Medical Image Analysis 2024, 103163): slides and reports in one space, and four ways to search it."""
