"""What a score is worth: chance, floors, order of files, leakage, and verdicts by a written rule."""
