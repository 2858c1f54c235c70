"""Rankers: functions from the evidence of one problem to an order of its samples."""
