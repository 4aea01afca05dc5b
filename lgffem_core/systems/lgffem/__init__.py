"""LGFFEM: aggregators, neck and head over a frozen backbone, its three strategies, and its text beside its code."""
