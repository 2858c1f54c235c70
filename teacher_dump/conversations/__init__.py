"""Conversations: read them, render them with the teacher's chat template, and turn each response into a row."""
