"""Answers that try to make a judge accept them, and judges that can be made to."""
