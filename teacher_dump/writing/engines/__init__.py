"""Engines that write responses."""
