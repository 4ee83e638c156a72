"""Many trainings that differ in a few values of their recipe, and one table of what they reached."""
