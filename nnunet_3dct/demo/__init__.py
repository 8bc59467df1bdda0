"""The whole workflow on the phantom, with the commands that a user types."""
