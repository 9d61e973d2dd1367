"""The right answers, made by the build from the lessons' exercise cells."""
