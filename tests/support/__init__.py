"""Factories and helpers shared by tests."""
