"""Scores → masks → pruned weights."""
