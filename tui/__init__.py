"""The place of the Textual application."""
