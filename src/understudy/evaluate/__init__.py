"""The rulers: what a picture shows, and how near it is to the right answer."""
