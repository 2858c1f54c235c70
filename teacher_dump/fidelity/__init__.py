"""Comparison of stored records with the teacher's exact distribution: `teacher-dump --check`."""
