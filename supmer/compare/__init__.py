"""Runs beside each other: settings that differ, validation, and whether few-shot scores differ by more than chance."""
