"""Reports about training: runs of student-train, and its evaluations of models."""
