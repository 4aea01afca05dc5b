"""What was asked for: parameters, the study that follows from them, and the code and machine at hand."""
