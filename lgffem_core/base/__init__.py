"""What everything else stands on, and which imports nothing of ours: errors, seeds, files, tensors, progress."""
